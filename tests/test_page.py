"""The page of the service in a real browser: what a person does by mouse, touch and keyboard, in the dark, on a phone, with a screen reader, and
with titles that would be scripts"""
import http.server,json,re,shutil,threading,time,zipfile
from pathlib import Path
import pandas as pd,pytest
pytest.importorskip('fastapi', reason='needs the extra serve')
sync = pytest.importorskip('playwright.sync_api', reason='needs playwright, of the extra docs')
from conftest import seldom
from fastrec.all import RecDataLoaders,learner,load_recommender,sample_ratings
from fastrec.serve import Background,app

chromium = shutil.which('chromium') or shutil.which('google-chrome') or shutil.which('chromium-browser')
pytestmark = pytest.mark.skipif(not chromium, reason='needs a Chromium')
axe = Path(__file__).parents[1]/'tools'/'node_modules'/'axe-core'/'axe.min.js'
patience = 20_000  # milliseconds, of a busy machine

payloads = ['<script>hit()</script>', '<img src=x onerror=hit()>', '<svg onload=hit()>', '"><script>hit()</script>', "'><img src=x onerror=hit()>", '<body onload=hit()>',
            '<iframe src="javascript:hit()">', '<a href="javascript:hit()">x</a>', 'javascript:hit()', '<details open ontoggle=hit()>', '<input autofocus onfocus=hit()>',
            '<video><source onerror=hit()>', '<math><mtext></form><form><mglyph><style></math><img src onerror=hit()>', '</title><script>hit()</script>', '</textarea><script>hit()</script>',
            '</style><script>hit()</script>', '</script><script>hit()</script>', '<!--><script>hit()</script-->', '<![CDATA[<script>hit()</script>]]>', '<object data="javascript:hit()">',
            '<embed src="javascript:hit()">', '<link rel=stylesheet href="javascript:hit()">', '<style>@import "javascript:hit()"</style>', '<base href="javascript:hit()//">',
            '<meta http-equiv=refresh content="0;url=javascript:hit()">', '<form action="javascript:hit()"><button>x', '<button formaction=javascript:hit()>x', '<marquee onstart=hit()>',
            '<div style="background:url(javascript:hit())">', '<x contenteditable onblur=hit()>', '${hit()}', '{{hit()}}', '{{constructor.constructor("hit()")()}}', '<%= hit() %>', '#{hit()}',
            '`${hit()}`', '\\u003cscript\\u003ehit()\\u003c/script\\u003e', '&lt;script&gt;hit()&lt;/script&gt;', '&#60;script&#62;hit()&#60;/script&#62;', '%3Cscript%3Ehit()%3C/script%3E',
            '<scr<script>ipt>hit()</scr</script>ipt>', '<SCRIPT SRC=//evil.example/x.js></SCRIPT>', '<ſcript>hit()</ſcript>', '＜script＞hit()＜/script＞', '<script\n>hit()</script\n>', '<svg><script>hit()</script></svg>',
            "' onmouseover='hit()", '" onfocus="hit()" autofocus="', '~5~<b>bold</b>', '&r=5~<i>x</i>&film=<b>x</b>', '__proto__', '\u202e)(tih<tpircs>']

def fitted(df, how='fit_als', **kwargs):
    learn = learner(RecDataLoaders.from_df(df, seed=0), seed=0)
    with learn.no_bar(),learn.no_logging(): getattr(learn, how)(**kwargs)
    return learn

@pytest.fixture(scope='module')
def df(): return sample_ratings(n_users=80, n_items=60, n_ratings=1500)

@pytest.fixture(scope='module')
def folders(df, tmp_path_factory):
    "Saved recommenders: one of stars with draws, one of choices, one whose titles are payloads, of half stars, one of numbers"
    at = tmp_path_factory.mktemp('page')
    odd = dict(zip(df.title.value_counts().index, payloads))
    made = dict(stars=fitted(df, 'fit_bayes', n_sweep=60), choices=fitted(df, 'fit_ials'),
                payloads=fitted(df.assign(title=df.title.map(lambda o: odd.get(o, o)), rating=df.rating-.5)),
                numbers=fitted(df.assign(rating=df.rating*20, title=1000+pd.factorize(df.title)[0])))
    return {k: o.save_recommender(at/k) for k,o in made.items()}

@pytest.fixture(scope='module')
def urls(folders):
    "Where each is served; the first beside the second"
    each = {k: Background(app(o, beside=folders['choices'] if k=='stars' else None)) for k,o in folders.items()}
    yield {k: o.url for k,o in each.items()}
    for o in each.values(): o.stop()

@pytest.fixture(scope='module')
def browser():
    with sync.sync_playwright() as p:
        res = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        yield res
        res.close()

@pytest.fixture
def opened(browser):
    "A function that opens a page in a window of its own; what goes wrong there is told at the end, but for what is `expected`"
    contexts,wrong,expected,hosts = [],[],[],set()
    def open_page(url, to_expect=(), **window):
        context = browser.new_context(**{'viewport': dict(width=1280, height=900), **window})
        page = context.new_page()
        page.set_default_timeout(patience)
        contexts.append(context)
        hosts.add('/'.join(url.split('/')[:3]))
        expected.extend(to_expect)
        page.said = []
        page.on('console', lambda m: page.said.append(m.text))
        page.on('pageerror', lambda e: wrong.append(str(e)))
        page.on('console', lambda m: wrong.append(m.text) if m.type in ('error','warning') else None)
        page.on('dialog', lambda d: (wrong.append(d.message), d.dismiss()))
        page.on('request', lambda r: None if r.url.startswith((*hosts,'data:')) else wrong.append(f'asks {r.url}'))
        page.expose_function('hit', lambda: wrong.append('a title ran as a script'))
        page.goto(url)
        return page
    yield open_page
    for o in contexts: o.close()
    assert [o for o in wrong if not any(e in o for e in expected)]==[]

def until(page, what='true', arg=None, said=''):
    "Wait for `what`, and for the console to have `said` that; Playwright's own way would evaluate text, which the page does not allow"
    end = time.monotonic()+patience/1000
    while not page.evaluate(what, arg) or (said and not any(said in o for o in page.said)):
        assert time.monotonic()<end, what

def titles(page, of='#best'): return page.locator(f'{of} .title').all_inner_texts()
def listed(page): page.wait_for_selector('#best > li')
def settled(page):
    "Wait until nothing is asked any more"
    page.wait_for_load_state('networkidle')
    until(page, "document.body.dataset.asking==='0'")
def star(page, of, k, stars): page.locator(of).nth(k).locator('label').nth(stars-1).click()
def address(url, *rated, **more):
    from urllib.parse import urlencode
    return f'{url}/#'+urlencode([*[('r', f'{v}~{o}') for o,v in rated], *more.items()])
def focused(page): return page.evaluate("document.activeElement.closest('.rows > li')?.item ?? document.activeElement.id")

# ------------------------------------------------------------------ what a person does
def test_a_rating_leads_to_a_list_at_once(opened, urls, folders, df):
    page = opened(urls['stars'])
    page.wait_for_selector('#offers > li')
    assert page.locator('#empty').is_visible() and not page.locator('#best').is_visible()
    popular = titles(page, '#offers')
    star(page, '#offers .rater', 0, 5)
    listed(page)
    assert titles(page, '#mine')==popular[:1] and popular[0] not in titles(page, '#offers')
    star(page, '#offers .rater', 0, 1)
    settled(page)
    mine = pd.DataFrame(dict(title=popular[:2], rating=[5.,1.]))
    want = load_recommender(folders['stars']).fold_in(mine).recommend(n=10, why=2)
    assert titles(page)==want.title.tolist()
    first = page.locator('#best > li').first
    assert f'{want.score[0]:.1f}' in first.inner_text() and '±' in first.inner_text()
    assert want.because_1[0] in first.locator('.because').inner_text()
    star(page, '#best .rater', 0, 4)
    until(page, 'n => document.querySelectorAll("#mine > li").length===n', 3)
    settled(page)
    assert want.title[0] not in titles(page) and titles(page, '#mine')[0]==want.title[0]
    rated = page.url
    page.locator('#restart').click()
    page.wait_for_selector('#empty')
    assert page.locator('#mine').is_hidden() and page.url.rstrip('#')==urls['stars']+'/' and focused(page)=='undo'
    until(page, "document.querySelector('#said').textContent==='Started over.'")
    page.keyboard.press('Enter')
    listed(page)
    settled(page)
    assert page.url==rated and len(titles(page, '#mine'))==3 and page.locator('#undo').is_hidden() and focused(page)=='typed'

def test_search_forgives(opened, urls, df):
    page = opened(urls['stars'])
    title = df.title[3]
    page.fill('#typed', f' {title[:3].upper()}{title[4:]} ')
    page.wait_for_selector('#found > li')
    assert titles(page, '#found')[0]==title
    star(page, '#found .rater', 0, 5)
    listed(page)
    assert titles(page, '#mine')==[title] and page.locator('#found input:checked').count()==1
    page.fill('#typed', '\U0001f3ac')
    page.wait_for_selector('#none')
    assert page.locator('#found').is_hidden()

def test_a_film_has_reasons_and_what_is_like_it(opened, urls, folders, df):
    rec = load_recommender(folders['stars'])
    rated = [(o, 5) for o in df.title.unique()[:3]]
    page = opened(address(urls['stars'], *rated))
    listed(page)
    title = titles(page)[0]
    page.locator('#best .title').first.click()
    page.wait_for_selector('#alike > li')
    assert titles(page, '#alike')==rec.similar(title, 5).title.tolist()
    page.wait_for_selector('#parts tr')
    want = rec.fold_in(pd.DataFrame(rated, columns=['title','rating'])).predict(title)
    assert page.locator('#parts tr').last.inner_text().split()==['together',f'{want:.2f}']
    sums = [float(o.replace('−', '-')) for o in page.locator('#parts td').all_inner_texts()]
    assert abs(sum(sums[:-1])-sums[-1])<.05
    page.locator('#alike .title').first.click()
    until(page, "t => document.querySelector('#film-title').textContent!==t", title)
    page.go_back()
    assert page.locator('#film-title').inner_text()==title
    page.go_back()
    page.wait_for_selector('#film', state='hidden')

def test_moods_variety_and_two_models(opened, urls, folders, df):
    rated = [(o, s) for o,s in zip(df.title.unique()[:6], (5,5,4,1,2,5))]
    new = load_recommender(folders['stars']).fold_in(pd.DataFrame(rated, columns=['title','rating']))
    page = opened(address(urls['stars'], *rated))
    listed(page)
    page.locator('text=Safe').click()
    settled(page)
    assert titles(page)==new.recommend(n=10, z=-1.).title.tolist() and page.locator('#best .because').count()==10
    page.locator('text=Surprise me').click()
    until(page, "location.hash.includes('draw=')")
    settled(page)
    draw = int(re.search(r'draw=(\d+)', page.url)[1])
    assert titles(page)==new.recommend(n=10, draw=draw).title.tolist()
    before = page.url
    page.locator('#redraw').click()
    until(page, 'u => location.href!==u', before)
    page.locator('text=Best').click()
    page.locator('#variety').fill('0.6')
    settled(page)
    assert titles(page)==new.recommend(n=10, diversity=.6).title.tolist()
    page.locator('#beside').check()
    page.wait_for_selector('#best-b > li')
    settled(page)
    other = load_recommender(folders['choices']).fold_in(pd.DataFrame(rated, columns=['title','rating'])[['title']].assign(rating=1))
    assert titles(page, '#best-b')==other.recommend(n=10, diversity=.6).title.tolist()
    shared = {*titles(page)}&{*titles(page, '#best-b')}
    assert page.locator('#best .badge:not(.new)').count()==page.locator('#best-b .badge:not(.new)').count()==len(shared)

@pytest.fixture(scope='module')
def compared(df, tmp_path_factory):
    "A service of a blend with draws beside a model of ratings without, both with the same measures, in folders called films and older"
    at = tmp_path_factory.mktemp('compared')
    each = dict(films=fitted(df, 'fit_blend', ratings='fit_bayes'), older=fitted(df))
    for (k,o),rmse in zip(each.items(), (.8,.9)): o.save_recommender(at/k, ratings=True, metrics=dict(rmse=rmse, ndcg_at_10=rmse/4))
    with Background(app(at/'films', beside=at/'older')) as service: yield service.url

def test_two_models_are_told_apart(opened, compared, df):
    "By the names of their folders, without a path, by the same measures, and each by how it orders its list"
    rated = [(o, s) for o,s in zip(df.title.unique()[:6], (5,5,4,1,2,5))]
    page = opened(address(compared, *rated, beside='1'))
    page.wait_for_selector('#best-b > li')
    settled(page)
    names = [page.locator(o).inner_text() for o in ('#name-a','#name-b')]
    assert names[0].startswith('films · fit_blend · RMSE 0.800 · NDCG@10 0.200') and names[1].startswith('older · fit_als · RMSE 0.900 · NDCG@10 0.225')
    told = [page.evaluate('o => fetch(o).then(o => o.json())', o) for o in ('version','beside/version')]
    assert [o['folder'] for o in told]==['films','older']
    assert 'people of your taste' in page.locator('#meaning-a').inner_text()
    assert page.locator('#meaning-b').inner_text()=='What you are predicted to rate highest comes first.'
    assert 'comes first' not in page.locator('#meaning').inner_text()
    page.wait_for_selector('#map .spot')
    assert 'on the list of films' in page.locator('.legend').inner_text()
    assert re.search(r', number \d+ on the list of films$', page.locator('#map .listed').first.get_attribute('aria-label'))
    page.locator('#best-b .title').first.click()
    until(page, "document.querySelector('#film-guess').textContent.startsWith('Predicted for you by films: ')")
    page.keyboard.press('Escape')
    before = titles(page, '#best-b')
    page.locator('text=Safe').click()
    settled(page)
    assert 'lower end' in page.locator('#meaning-a').inner_text()
    other = page.locator('#meaning-b').inner_text()
    assert other.startswith('Safe needs a model with draws') and 'predicted to rate highest' in other and titles(page, '#best-b')==before
    page.locator('text=Surprise me').click()
    settled(page)
    assert 'at random' in page.locator('#meaning-a').inner_text() and page.locator('#meaning-b').inner_text().startswith('Surprise me needs')
    page.locator('#beside').uncheck()
    settled(page)
    assert page.locator('#meaning-b').is_hidden() and 'at random' in page.locator('#meaning').inner_text()
    assert 'on your list' in page.locator('.legend').inner_text()

@pytest.mark.long
def test_folders_of_one_name_are_this_and_beside(opened, folders, df, tmp_path):
    "And a measure that one has alone is shown for that one"
    for k in 'ab': fitted(df).save_recommender(tmp_path/k/'films', metrics=dict(rmse=.9) if k=='a' else dict(ndcg_at_10=.1))
    with Background(app(tmp_path/'a'/'films', beside=tmp_path/'b'/'films')) as service:
        page = opened(address(service.url, (df.title[0],5), beside='1'))
        page.wait_for_selector('#best-b > li')
        assert page.locator('#name-a').inner_text().startswith('this · fit_als · RMSE 0.900 · ')
        assert page.locator('#name-b').inner_text().startswith('beside · fit_als · NDCG@10 0.100 · ')
        assert page.locator('#meaning').inner_text().startswith('What you are predicted') and page.locator('#meaning-a').is_hidden()  # of both, once

def test_a_place_on_a_list_is_one_thing_and_a_prediction_another(opened, compared, df):
    "A film tells both, and how sure the prediction is, as the list does"
    rated = [(o, 5) for o in df.title.unique()[:3]]
    page = opened(address(compared, *rated, variety='0.3'))
    listed(page)
    settled(page)
    told = page.locator('#meaning').inner_text()
    assert 'how likely you are to choose it' in told and 'With variety' in told
    guess = page.locator('#best .guess').nth(1).inner_text()
    page.locator('#best .title').nth(1).click()
    page.wait_for_selector('#parts tr')
    for o in re.findall(r'[\d.]+', guess)[:2]: assert o in page.locator('#film-guess').inner_text()
    assert '±' in page.locator('#film-guess').inner_text()
    rank = page.locator('#film-rank').inner_text()
    assert rank.startswith('Number 2 on your list. What people of your taste')
    assert 'not for a place on a list' in page.locator('#film-why').inner_text() and 'two out of three' in page.locator('#film-sure').inner_text()

@pytest.mark.long
@pytest.mark.parametrize('change,sent,said', [(lambda o: 20*o,[100,40],'rates from 20 to 100: your ratings, from 1 to 5, were converted to its scale'), (lambda o: o.where(o>1, .5),[5,2],''),
                                              (lambda o: (o-1)/4,[1,.25],'rates from 0 to 1')], ids=['hundred','halves','shares'])
def test_the_second_model_is_told_on_its_own_scale(opened, folders, df, tmp_path, change, sent, said):
    "Along it where it is another one, as it is where the ends differ a little, and the page says which"
    rated = [(o, s) for o,s in zip(df.title.unique()[:2], (5,2))]
    second = fitted(df.assign(rating=change(df.rating))).save_recommender(tmp_path/'second')
    with Background(app(folders['stars'], beside=second)) as service:
        page,asked = opened(service.url),[]
        page.on('request', lambda o: asked.append([r['rating'] for r in o.post_data_json['ratings']]) if o.url.endswith('beside/recommend') else None)
        page.goto(address(service.url, *rated, beside='1'))
        page.reload()  # an address that differs behind the # alone is the same page
        page.wait_for_selector('#best-b > li')
        settled(page)
        assert asked[-1]==pytest.approx(sent, abs=1e-4)
        told = page.locator('#meaning').inner_text()
        assert said in told and ('scale' in told)==bool(said)
        new = load_recommender(second).fold_in(pd.DataFrame(dict(title=[o for o,_ in rated], rating=[float(o) for o in sent])))
        assert titles(page, '#best-b')==new.recommend(n=10).title.tolist()
        page.locator('#beside').uncheck()
        settled(page)
        assert 'scale' not in page.locator('#meaning').inner_text()

@pytest.mark.long
def test_the_second_model_may_know_choices_alone(opened, urls, df):
    page = opened(address(urls['stars'], (df.title[0],1), beside='1'))
    page.wait_for_selector('#best-b > li')
    settled(page)
    assert 'takes everything you rated as chosen' in page.locator('#meaning').inner_text()

def test_choices_are_liked_or_not(opened, urls, folders):
    page = opened(urls['choices'])
    page.wait_for_selector('#offers > li')
    popular = titles(page, '#offers')
    for k in range(2): page.locator('#offers .like:not(.not)').first.click()
    page.locator('#offers .not').first.click()
    listed(page)
    settled(page)
    new = load_recommender(folders['choices']).fold_in(pd.DataFrame(dict(title=popular[:2], rating=1)))
    want = [o for o in new.recommend(n=11).title if o!=popular[2]][:10]
    assert titles(page)==want and page.locator('#mine [aria-pressed=true]').count()==3
    assert 'because you like' in page.locator('#best > li').first.inner_text() and page.locator('#moods').is_hidden()
    assert 'left off your list' in page.locator('#mine-hidden').inner_text()  # and that is all
    until(opened(page.url), 'n => document.querySelectorAll("#mine [aria-pressed=true]").length===n', 3)

def test_half_stars_and_numbers(opened, urls):
    page = opened(urls['payloads'])
    page.wait_for_selector('#offers > li')
    assert page.locator('#offers .rater').first.locator('input').count()==9  # .5 to 4.5
    page.locator('#offers .rater').first.locator('label').nth(6).click()
    until(page, "location.hash.includes('r=3.5')")
    page = opened(urls['numbers'])
    page.wait_for_selector('#offers > li')
    page.locator('#offers .rater input').first.fill('77')
    until(page, "location.hash.startsWith('#r=77')")
    listed(page)
    assert re.fullmatch(r'1\d\d\d', titles(page)[0])  # labels that are numbers
    page.locator('#best .title').first.click()
    page.wait_for_selector('#alike > li')

def steps_served(df, tmp_path, change, ratings):
    "A service of a model of the ratings that `change` makes, in a folder that keeps them if `ratings`"
    return Background(app(fitted(df.assign(rating=change(df.rating))).save_recommender(tmp_path/'films', ratings=ratings)))

@pytest.mark.long
@pytest.mark.parametrize('ratings', [True,False], ids=['known','unknown'])
def test_stars_that_begin_above_one(opened, df, tmp_path, ratings):
    "From 1.5 to 5: halves, as training has them, or as the ends are; what the first star gives is the lowest"
    with steps_served(df, tmp_path, lambda o: (o*.875+.625).mul(2).round()/2, ratings) as service:
        page = opened(service.url)
        page.wait_for_selector('#offers > li')
        rater = page.locator('#offers .rater').first
        assert rater.locator('input').evaluate_all('o => o.map(o => Number(o.value))')==[1.5,2,2.5,3,3.5,4,4.5,5]
        widths = rater.locator('label').evaluate_all('o => o.map(o => o.offsetWidth)')
        assert widths[0]==pytest.approx(3*widths[1], abs=2) and sum(widths)==pytest.approx(10*widths[1], abs=6)  # the sixth of them is the sixth half
        rater.locator('label').first.click(position=dict(x=4, y=10))
        until(page, "location.hash.startsWith('#r=1.5%7E')")
        settled(page)

@pytest.mark.long
def test_steps_are_those_of_training(opened, df, tmp_path):
    "Whole stars at the ends, halves between; and no step where there is none"
    with steps_served(df, tmp_path, lambda o: o.where(df.index%3!=0, 3.5), True) as service:
        page = opened(service.url)
        page.wait_for_selector('#offers > li')
        assert page.locator('#offers .rater').first.locator('input').count()==9
        assert page.evaluate("fetch('version').then(o => o.json())")['rating_step']==.5
    with steps_served(df, tmp_path, lambda o: (o+df.index.to_numpy()%7/7).clip(1,5), True) as service:
        page = opened(service.url)
        page.wait_for_selector('#offers > li')
        assert 'rating_step' not in page.evaluate("fetch('version').then(o => o.json())")
        settled(page)

@pytest.mark.long
@pytest.mark.parametrize('way', ['mouse','touch','keys'])
def test_a_slider_is_unset_until_it_is_set_and_can_be_set_everywhere(opened, df, tmp_path, way):
    "In its middle too; both of its ends are shown, and what it gives is on the steps of training"
    change = lambda o: (o*1.75+1.25).mul(2).round()/2
    with steps_served(df, tmp_path, change, True) as service:
        page = opened(service.url, **(dict(viewport=dict(width=380, height=800), has_touch=True, is_mobile=True) if way=='touch' else {}))
        page.wait_for_selector('#offers > li')
        box = page.locator('#offers .number').first
        slider = box.locator('input')
        assert box.locator('.ends').inner_text().split()==['3','10'] and slider.get_attribute('step')=='0.5'
        assert page.locator('#offers .number.unset').count()==6 and slider.evaluate('o => o.ariaValueText')=='not rated'
        if way=='mouse': slider.click()
        elif way=='touch': slider.tap()
        else:
            slider.focus()
            page.keyboard.press('Enter')  # shows where it stands
            page.wait_for_timeout(50)
            assert not rated_in(page) and box.locator('output').inner_text()=='6.5?'
            page.keyboard.press('Enter')
        until(page, "location.hash.startsWith('#r=6.5%7E')")
        listed(page)
        assert page.locator('#mine .number').first.evaluate("o => !o.classList.contains('unset')")
        page.locator('#mine input').first.focus()
        page.keyboard.press('ArrowRight')
        page.keyboard.press('Enter')
        until(page, "location.hash.startsWith('#r=7%7E')")
        settled(page)

@pytest.mark.long
@pytest.mark.parametrize('column,want', [('Wine','wines'),('ISBN','ISBNs'),('story','stories'),('movieId','movieIds'),('Films','films'),('book_title','book_titles'),('filmtitel','items'),('Película','items'),('Buchname','items')])
@pytest.mark.filterwarnings('ignore:taken for users')
def test_what_is_searched_is_a_word(opened, df, tmp_path, column, want):
    with Background(app(fitted(df.rename(columns={'title': column})[['user',column,'rating']]).save_recommender(tmp_path/'films'))) as service:
        page = opened(service.url)
        page.wait_for_selector('#offers > li')
        assert page.locator('[for=typed]').inner_text()==f'Search 60 {want}'

@pytest.mark.long
def test_ids_beyond_those_of_javascript(opened, df, tmp_path):
    far = df.assign(title=2**60+pd.factorize(df.title)[0])
    folder = fitted(far).save_recommender(tmp_path/'films')
    with Background(app(folder)) as service:
        page = opened(service.url)
        page.wait_for_selector('#offers > li')
        first = titles(page, '#offers')[0]
        star(page, '#offers .rater', 0, 5)
        listed(page)
        settled(page)
        want = load_recommender(folder).fold_in(pd.DataFrame(dict(title=[int(first)], rating=[5.]))).recommend()
        assert titles(page, '#mine')==[first] and titles(page)==want.title.astype(str).tolist()

@pytest.mark.long
@pytest.mark.parametrize('low,high', [(0,1),(0,5),(.2,.9),(.7,4.7)])
def test_what_has_no_stars_can_be_given_its_lowest(opened, df, tmp_path, low, high):
    "A slider from the lowest rating to the highest: a first star could not say 0"
    ratings = (df.rating-1)/4*(high-low)+low
    folder = fitted(df.assign(rating=ratings.round(4))).save_recommender(tmp_path/'films')
    with Background(app(folder)) as service:
        page = opened(service.url)
        page.wait_for_selector('#offers > li')
        slider = page.locator('#offers .rater input').first
        assert slider.get_attribute('type')=='range'
        slider.fill(str(low))
        until(page, "o => Math.abs(parseFloat(location.hash.slice(3))-o)<1e-4", low)
        listed(page)
        assert page.locator('#mine output').inner_text()==f'{low:g}'
        assert any(float(o)!=round(float(o)) for o in page.locator('#best .guess b').all_inner_texts())
        page.locator('#mine .rater input').fill(str(high))
        until(page, 'o => document.querySelector("#mine output").textContent===o', f'{high:g}')
        settled(page)
        assert page.locator('#offers .back:visible').count()==0  # what is not rated cannot be taken back
        page.locator('#mine .back').click()
        page.wait_for_selector('#empty')
        assert 'r=' not in page.url and focused(page)
        slider.fill(str(low))
        listed(page)
        page.locator('#mine .rater input').press('Delete')
        page.wait_for_selector('#empty')

def test_biases_alone_have_no_map(opened, df, tmp_path):
    with Background(app(fitted(df, 'fit_bias').save_recommender(tmp_path/'films'))) as service:
        page = opened(address(service.url, (df.title[0],5), variety='0.5'))
        listed(page)
        page.locator('#best .title').first.click()
        page.wait_for_selector('#parts tr')
        settled(page)
        assert not any(page.locator(o).is_visible() for o in ('#map','#variety','#alike'))

# ------------------------------------------------------------------ the address
def test_the_address_is_the_state(opened, urls, df):
    first,second,third = df.title.unique()[:3]
    url = address(urls['stars'], (first,5), (second,2), mood='safe', variety='0.3', beside='1', film=third)
    page = opened(url)
    listed(page)
    settled(page)
    assert titles(page, '#mine')==[second,first] and page.locator('#film-title').inner_text()==third
    assert page.locator('[name=mood]:checked').input_value()=='safe' and page.locator('#variety').input_value()=='0.3'
    found = titles(page),titles(page, '#best-b')
    page.keyboard.press('Escape')
    until(page, "!location.hash.includes('film=')")
    again = opened(page.url)
    listed(again)
    settled(again)
    assert (titles(again),titles(again, '#best-b'))==found and again.locator('#film').is_hidden()

@pytest.mark.long
def test_what_does_not_fit_in_an_address_is_told(opened, urls, df):
    good = df.title[0]
    page = opened(address(urls['stars'], (good,4), ('No Such Film',5), (good+'x','NaN'), ('a','99'), ('b',''), ('y'*4097,3), mood='<b>', variety='1e9', draw='-1', other='x'))
    listed(page)
    settled(page)
    notes = page.locator('#notes').inner_text()
    assert 'Ignored in the address: 1 that cannot be read: 3~yyy' in notes and 'repeated' not in notes
    assert f'Ignored in the address: 3 not rated from 1 to 5: NaN for {good}x; 99 for a; nothing for b.' in notes
    assert 'past' not in notes and 'Not known here: No Such Film' in notes
    assert page.locator('[name=mood]:checked').input_value()=='best' and page.locator('#variety').input_value()=='0.9'

@pytest.mark.long
def test_a_link_of_which_nothing_fits_says_so_where_it_is_seen(opened, urls, df):
    "Above the list, and what is said of its order is true of one that is by no taste"
    one,two = df.title.unique()[:2]
    page = opened(address(urls['stars'], (one,9), (two,0)), viewport=dict(width=1280, height=800))
    page.wait_for_selector('#notes')
    settled(page)
    assert f'2 not rated from 1 to 5: 9 for {one}; 0 for {two}.' in page.locator('#notes').inner_text() and page.locator('#empty').is_visible()
    page = opened(address(urls['stars'], ('No Such Film',4)), viewport=dict(width=1280, height=800))
    listed(page)
    settled(page)
    told = page.locator('#meaning').inner_text()
    assert 'this is what many people rated' in told and 'predicted' not in told and 'because many rated it' in page.locator('#best > li').first.inner_text()
    assert page.locator('#notes').inner_text()=='Not known here: No Such Film.'
    assert page.locator('#notes').bounding_box()['y']<page.locator('#best').bounding_box()['y']

@pytest.mark.long
def test_a_forged_address_has_each_title_once(opened, urls, df):
    "The first counts, and what does not is told; a title that is both liked and hidden is liked"
    one,two = df.title.unique()[:2]
    page = opened(address(urls['stars'], (one,5), (one,1), (two,2))+'&'+'&'.join(f'x={o}' for o in [one,'Gone','Gone']))
    listed(page)
    settled(page)
    assert titles(page, '#mine')==['Gone',two,one] and page.locator('#mine-title').inner_text()=='You rated 2'
    assert '1 repeated (the first one counts)' in page.locator('#notes').inner_text()

@pytest.mark.long
def test_the_order_of_a_list_is_explained(opened, urls, df):
    for kind,rated,words in (('stars',(df.title[0],5),'predicted to rate highest'), ('choices',(df.title[0],'+'),'fits best with what you like'),
                             ('payloads',(payloads[0],3.5),'need a model with draws')):
        page = opened(address(urls[kind], rated))
        listed(page)
        assert words in page.locator('#meaning').inner_text() and ('draws' in words)==(kind=='payloads')
    page = opened(address(urls['stars'], (df.title[0],5), mood='safe', variety='0.3'))
    listed(page)
    told = page.locator('#meaning').inner_text()
    assert 'lower end' in told and 'moves up' in told

# ------------------------------------------------------------------ keyboard, screen reader, dark, phone
def tab_to(page, at, most=60):
    "Press Tab until what has the focus matches `at`"
    for _ in range(most):
        page.keyboard.press('Tab')
        if page.evaluate('s => document.activeElement.matches(s)', at): return
    raise AssertionError(f'Tab does not lead to {at}')

def test_the_keyboard_alone_does_everything(opened, urls, df):
    page = opened(urls['stars'])
    page.wait_for_selector('#offers > li')
    tab_to(page, '#typed')
    page.keyboard.type(df.title[0])
    until(page, "o => document.querySelector('#found > li')?.item===o", df.title[0])
    settled(page)
    page.keyboard.press('ArrowDown')
    title = focused(page)
    page.keyboard.press('4')  # stars by a digit
    listed(page)
    assert 'r=4' in page.url and focused(page)==title
    page.keyboard.press('ArrowRight')  # which moves, and
    assert 'r=4' in page.url
    page.keyboard.press('Enter')
    until(page, "location.hash.startsWith('#r=5')")
    page.keyboard.press('Escape')
    assert focused(page)=='typed' and page.locator('#found').is_hidden()
    tab_to(page, '#offers input')
    offered = focused(page)
    page.keyboard.press('Space')
    until(page, "document.querySelectorAll('#mine > li').length===2")
    assert focused(page)==offered and page.evaluate("document.activeElement.closest('#mine')!==null")  # it has moved, and the focus with it
    for _ in range(2): page.keyboard.press('ArrowRight')
    page.keyboard.press('Space')
    until(page, "location.hash.includes('r=3')")
    page.keyboard.press('Delete')
    until(page, "document.querySelectorAll('#mine > li').length===1")
    assert focused(page)=='typed'
    settled(page)
    tab_to(page, '[name=mood]')
    page.keyboard.press('ArrowRight')
    until(page, "location.hash.includes('mood=safe')")
    tab_to(page, '#variety')
    page.keyboard.press('ArrowRight')
    until(page, "location.hash.includes('variety=0.1')")
    settled(page)
    tab_to(page, '#best .title')
    page.keyboard.press('Enter')
    page.wait_for_selector('#alike > li')
    tab_to(page, '#alike .title')
    page.keyboard.press('Escape')
    page.wait_for_selector('#film', state='hidden')
    assert page.evaluate("document.activeElement.matches('#best .title')")
    tab_to(page, '#map .spot')
    first = page.evaluate('document.activeElement.item')
    went = []
    for o in ('ArrowLeft','ArrowRight','ArrowUp','ArrowDown'):  # there are others on one side at least
        page.keyboard.press(o)
        assert page.evaluate("document.activeElement.matches('#map .spot')")
        went.append(page.evaluate('document.activeElement.item'))
    found = went[-1]
    assert {*went}!={first}
    page.keyboard.press('Enter')
    page.wait_for_selector('#film-title')
    assert page.locator('#film-title').inner_text()==found
    page.keyboard.press('Escape')
    for _ in range(80):
        page.keyboard.press('Shift+Tab')
        if focused(page)=='restart': break
    page.keyboard.press('Enter')
    page.wait_for_selector('#empty')

def rated_in(page): return re.findall(r'[#&]r=([^~]*)~', page.url)

@pytest.mark.parametrize('kind', ['stars',*seldom('payloads', 'numbers'),'choices'])
def test_arrows_move_and_rate_nothing(opened, urls, kind):
    "Among what was found, in the list and in a film; keys that the browser has for itself do not rate either"
    page = opened(urls[kind])
    page.wait_for_selector('#offers > li')
    title = titles(page, '#offers')[0]
    page.fill('#typed', title[:4])
    page.wait_for_selector('#found > li')
    settled(page)
    moves = [*['ArrowDown']*3,'ArrowRight','ArrowRight','ArrowLeft','End','Home','ArrowUp','ArrowDown','PageUp','Control+4','Alt+4']
    page.focus('#typed')
    for o in moves: page.keyboard.press(o)
    for _ in range(5): page.keyboard.press('ArrowUp')
    assert focused(page)=='typed'
    page.keyboard.press('Escape')
    page.evaluate("document.querySelector('#offers .rater').focusable().focus()")
    for o in moves: page.keyboard.press(o)
    page.locator('#offers .title').first.click()
    page.wait_for_selector('#film[open]')
    page.evaluate("document.querySelector('#film-rating .rater').focusable().focus()")
    for o in moves: page.keyboard.press(o)
    page.wait_for_timeout(50)
    assert not rated_in(page)
    page.evaluate("document.querySelector('#film-rating .rater').focusable().focus()")
    if kind!='choices': page.keyboard.press('ArrowRight')
    page.keyboard.press('Enter')
    until(page, "location.hash.includes('r=')")
    first = rated_in(page)
    for o in moves: page.keyboard.press(o)
    page.wait_for_timeout(50)
    assert rated_in(page)==first
    page.keyboard.press('Delete')
    until(page, "!location.hash.includes('r=')")

@pytest.mark.parametrize('kind,rated', [('choices','+'),('stars','5')])
def test_texts_fit_the_model(opened, urls, df, kind, rated):
    page = opened(urls[kind])
    page.wait_for_selector('#offers > li')
    texts = page.inner_text('body')
    page.goto(address(urls[kind], *[(o, rated) for o in df.title.unique()[:3]]))
    page.reload()
    listed(page)
    settled(page)
    page.wait_for_selector('#map .spot')
    texts += page.inner_text('body')+' '.join(page.evaluate("[...document.querySelectorAll('[aria-label]')].map(o => o.ariaLabel)"))
    words = {*re.findall(r'\b(?:rated?|ratings?|stars?|likes?)\b|±', texts.lower())}
    assert words=={'like'} if kind=='choices' else {'rate','rated','±'}<=words
    assert texts.count('two out of three')==(kind=='stars')  # where ± is

@pytest.mark.long
def test_closeness_does_not_depend_on_the_window(opened, urls, df):
    "And is what the service says, on one scale for both of its directions"
    url = address(urls['stars'], *[(o, s) for o,s in zip(df.title.unique()[:6], (5,1,4,5,2,5))])
    found = []
    for width in (1280,700,380):
        page = opened(url, viewport=dict(width=width, height=600))
        answers = []
        page.on('response', lambda o: answers.append(o) if o.url.endswith('/map') else None)
        page.reload()
        page.wait_for_selector('#map .spot')
        settled(page)
        told = answers[-1].json()
        near = {str(o['item']): ((o['x']-told['you']['x'])**2+(o['y']-told['you']['y'])**2)**.5 for o in (*told['items'],*told['others'])}
        mine = titles(page, '#mine')
        want = sorted((o for o in near if o not in mine), key=near.get)[:3]
        found.append(page.locator('#near bdi').all_inner_texts())
        assert found[-1]==want
        drawn = page.evaluate('''() => { const at = document.querySelector('#map .you').transform.baseVal[0].matrix
            return [...document.querySelectorAll('#map .spot')].map(o => [o.item, Math.hypot(o.place.x-at.e, o.place.y-at.f)]) }''')
        ratios = [d/near[o] for o,d in drawn if near[o]>1e-3]
        assert max(ratios)/min(ratios)<1.01
        boxes = page.evaluate('''[...document.querySelectorAll('#map .spot:not(.dumb) text')].map(o => o.getBoundingClientRect()).map(o => [o.left, o.right, o.top+2, o.bottom-2])''')
        assert not any(a[0]<b[1] and b[0]<a[1] and a[2]<b[3] and b[2]<a[3] for k,a in enumerate(boxes) for b in boxes[:k])
        inside = '''[...document.querySelectorAll('#map .spot')].map(o => { o.classList.remove('dumb'); return o.querySelector('text').getBoundingClientRect() })'''
        edges = page.evaluate("(() => { const o = document.querySelector('#map').getBoundingClientRect(); return [o.left, o.right] })()")
        assert all(edges[0]-1<=a and b<=edges[1]+1 for a,b in page.evaluate(inside+'.map(o => [o.left, o.right])'))

@pytest.mark.long
def test_the_map_names_first_what_matters(opened, urls, df):
    "What somebody rated, their list and what is closest; on a phone each that is listed has a name or its number"
    rated = [(o, s) for o,s in zip(df.title.unique()[:4], (5,1,4,5))]
    for width in (1280,380):
        page = opened(address(urls['stars'], *rated), viewport=dict(width=width, height=800))
        page.wait_for_selector('#map .spot')
        settled(page)
        spots = page.evaluate('''[...document.querySelectorAll('#map .spot')].map(o => {
            return {item: o.item, kind: o.place.kind, named: !o.classList.contains('dumb'), number: o.querySelector('.number')?.textContent} })''')
        of = lambda kind: [o for o in spots if o['kind']==kind]
        assert {o['item'] for o in of('rated')}=={o for o,_ in rated} and sum(o['named'] for o in of('rated'))>=3  # fonts differ
        assert {o['item'] for o in of('listed')}=={*titles(page)} and all(o['named'] or o['number'] for o in of('listed'))
        for o in of('listed'): assert o['number'] in (None,str(titles(page).index(o['item'])+1))
        if width==1280:
            near = page.locator('#near bdi').all_inner_texts()
            assert sum(o['named'] for o in spots if o['item'] in near)>=2 and sum(o['named'] for o in of('listed'))>=8

def test_a_preview_is_not_a_rating(opened, urls):
    "Stars under the mouse look unlike those that were given"
    page = opened(urls['stars'])
    page.wait_for_selector('#offers > li')
    colour = "k => getComputedStyle(document.querySelectorAll('#offers .rater')[k].querySelector('label')).backgroundColor"
    none = page.evaluate(colour, 0)
    page.locator('#offers .rater').first.locator('label').nth(2).hover()
    preview = page.evaluate(colour, 0)
    star(page, '#offers .rater', 0, 3)
    listed(page)
    given = page.evaluate(colour.replace('#offers','#mine'), 0)
    assert len({none,preview,given})==3

def violations(page):
    opts = dict(runOnly=dict(type='tag', values=['wcag2a','wcag2aa','wcag21a','wcag21aa','wcag22aa','best-practice']), resultTypes=['violations'])
    page.evaluate("document.getAnimations().forEach(o => o.finish())")
    found = page.evaluate('opts => axe.run(document, opts)', opts)['violations']
    return [(v['id'], n['target'], n['html'][:150]) for v in found for n in v['nodes']]

@pytest.mark.skipif(not axe.exists(), reason='needs axe (make docs)')
@pytest.mark.parametrize('scheme', ['light','dark'])
def test_axe_finds_nothing(opened, urls, df, scheme):
    rated = [(o, 5) for o in df.title.unique()[:3]]
    full = address(urls['stars'], *rated, mood='draw', draw='3', beside='1')
    others = urls['stars'],address(urls['stars'], *rated, film=df.title[9]),address(urls['choices'], (df.title[0],'+')),address(urls['numbers'], (1001,50))
    for url in (*(others if scheme=='light' else ()), full):
        page = opened(url, color_scheme=scheme, bypass_csp=True)  # for axe, which the page would not let in
        page.wait_for_selector('#offers > li, #mine > li')
        if url!=urls['stars']: listed(page)
        settled(page)
        page.add_script_tag(path=axe)
        assert not violations(page), url
    tab_to(page, '#mine input')  # the keys are told
    assert page.locator('#keys').is_visible() and not violations(page)
    page.locator('#restart').click()
    page.wait_for_selector('#undo')
    assert not violations(page)
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (int(re.search(r'\d+', dark)[0])<60)==(scheme=='dark')

def test_on_a_phone_nothing_stands_over_the_edge(opened, urls, df):
    phone = dict(viewport=dict(width=380, height=800), has_touch=True, is_mobile=True)
    page = opened(urls['stars'], **phone)
    page.wait_for_selector('#map .spot')
    assert page.evaluate('document.documentElement.scrollWidth')<=380
    page.locator('#offers .rater').first.locator('label').nth(4).tap()
    listed(page)
    bar = page.locator('#jump').bounding_box()
    assert bar['width']==380 and bar['y']+bar['height']==800  # nothing is half below it, nor at the end of the page
    assert page.evaluate("parseFloat(getComputedStyle(document.body).paddingBottom)")>=bar['height']
    page.locator('#jump').tap()
    page.wait_for_selector('#jump.there', state='attached')
    page.locator('#beside').check()
    page.wait_for_selector('#best-b > li')
    page.fill('#typed', df.title[0])
    page.wait_for_selector('#found > li')
    assert page.evaluate('document.documentElement.scrollWidth')<=380
    sizes = page.evaluate("[...document.querySelectorAll('button, .stars label, input[type=range], .segments span')].filter(o => o.checkVisibility()).map(o => o.getBoundingClientRect()).map(o => Math.min(o.width, o.height))")
    assert min(sizes)>=15  # of a finger's width: the rail of a slider
    long = 'W'*300
    page = opened(address(urls['stars'], (long,5), (df.title[0],3), film='Ü'*400), ['404'], **phone)
    listed(page)
    settled(page)
    assert page.evaluate('document.documentElement.scrollWidth')<=380
    heights = page.evaluate("[...document.querySelectorAll('#mine > li')].map(o => o.offsetHeight)")
    assert heights[1]<heights[0]+100 and page.evaluate("document.querySelector('#film-title').offsetHeight")<200  # three lines of it, and all in a box
    assert page.evaluate("(o => o.scrollWidth<=o.clientWidth)(document.querySelector('#film'))")

# ------------------------------------------------------------------ titles are text
def test_titles_are_text(opened, urls):
    "Fifty payloads as titles of the folder, and in the address, everywhere a title can be"
    assert len(payloads)>=50
    page = opened(urls['payloads'])
    page.wait_for_selector('#map .spot')
    rated = [(o, 3.5) for o in payloads[::5]]
    page = opened(address(urls['payloads'], *rated))
    listed(page)
    settled(page)
    assert titles(page, '#mine')==[re.sub(r'\s+', ' ', o).strip() for o,_ in rated[::-1]]
    spots = page.evaluate("[...document.querySelectorAll('#map .spot')].map(o => [o.item, o.querySelector('text').textContent, o.getAttribute('aria-label')])")
    assert {*payloads}<={o for o,*_ in spots} and all(label.startswith(o) for o,_,label in spots)
    for o,text,_ in spots: assert text==o or len(o)>40 and text==o[:39]+'…'
    for o in payloads[::7]:
        page.evaluate('o => { location.hash = new URLSearchParams({film: o}) }', o)
        until(page, "o => document.querySelector('#film-title').textContent===o", o)
        page.wait_for_selector('#alike > li')
    page = opened(address(urls['payloads'], *[(o+'?', 3.5) for o in payloads], film=payloads[1]+'?'), ['404'])
    listed(page)
    settled(page)
    page.keyboard.press('Escape')
    page.fill('#typed', '<img src=x onerror=hit()>')
    page.wait_for_selector('#found > li')
    assert page.evaluate("document.querySelectorAll('main :is(script,img,iframe,object,embed,video,a,style,base,meta,details,marquee,form:not(.search,.wishes)), [onerror],[onload],[onfocus]').length")==0
    assert page.evaluate('Object.prototype.hasOwnProperty.call(Object.prototype, "item")') is False

def test_no_script_or_style_of_a_page_counts(opened, urls):
    page = opened(urls['stars'], ['Content Security Policy','Failed to load'])
    page.evaluate("""() => {
        for (const [tag, text] of [['script','window.ran = 1'], ['style','body { display: none }']]) document.head.append(Object.assign(document.createElement(tag), {textContent: text}))
        document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.ran = 1">') }""")
    until(page, "document.images.length===0 || document.images[0].complete")
    page.evaluate("new Promise(go => requestAnimationFrame(() => setTimeout(go)))")
    for o in ('script','style'): assert any('Content Security Policy' in text and o in text for text in page.said), o
    assert page.evaluate('window.ran') is None and page.locator('h1').is_visible()

# ------------------------------------------------------------------ what goes wrong
def test_it_says_when_nobody_answers(opened, folders, df):
    service = Background(app(folders['stars']))
    page = opened(address(service.url, (df.title[0],5)), ['Failed to load'])
    listed(page)
    settled(page)
    before = titles(page)
    service.stop()
    star(page, '#offers .rater', 0, 5)
    page.wait_for_selector('#trouble')
    assert 'does not answer' in page.locator('#trouble').inner_text() and titles(page)==before
    with Background(app(folders['stars'])) as again:  # at a port of its own: another may have that one by now
        page.route(f'{service.url}/**', lambda o: o.continue_(url=o.request.url.replace(service.url, again.url), headers={**o.request.headers, 'host': again.url[7:]}))
        page.locator('#again').click()
        page.wait_for_selector('#trouble', state='hidden')
        settled(page)
        assert titles(page)!=before

@pytest.mark.long
def test_a_new_model_of_another_kind_takes_over(opened, folders, tmp_path, df):
    "Its ratings are in the address, and what does not fit there is told"
    own = shutil.copytree(folders['stars'], tmp_path/'films')
    with Background(app(own, every=.05)) as service:
        page = opened(address(service.url, (df.title[0],5)), ['Failed to load'])
        listed(page)
        load_recommender(folders['choices']).save_recommender(own)
        name = json.loads((own/'manifest.json').read_text(encoding='utf-8'))['checksum'][:12]
        until(page, "name => fetch('version').then(o => o.json()).then(o => o.model===name)", name)
        star(page, '#offers .rater', 0, 5)
        page.wait_for_selector('#offers .like')
        assert '2 with a rating, but this recommender only knows likes' in page.locator('#notes').inner_text()

@pytest.mark.long
def test_a_new_model_with_other_steps_takes_over(opened, df, tmp_path):
    "Halves, where there were whole stars, from and to the same ends"
    save = lambda ratings: fitted(df.assign(rating=ratings)).save_recommender(tmp_path/'films', ratings=True)
    with Background(app(save(df.rating.round()), every=.05)) as service:
        page = opened(service.url)
        page.wait_for_selector('#offers > li')
        assert page.locator('#offers .rater').first.locator('input').count()==5
        settled(page)
        save(df.rating.round().where(df.index%3!=0, 3.5))
        until(page, "step => fetch('version').then(o => o.json()).then(o => o.rating_step===step)", .5)
        star(page, '#offers .rater', 0, 5)
        page.wait_for_selector('#offers .rater input:nth-of-type(9)', state='attached')  # of the page that is loaded again
        assert page.locator('#offers .rater').first.locator('input').count()==9
        settled(page)

@pytest.mark.long
def test_a_new_second_model_is_followed(opened, folders, tmp_path, df):
    "One that has no draws where a draw is asked for, beside one that has; and one that fails leaves the first list there"
    second = shutil.copytree(folders['stars'], tmp_path/'second')
    rated = [(o, 5) for o in df.title.unique()[:3]]
    with Background(app(folders['stars'], beside=second, every=.05)) as service:
        page = opened(address(service.url, *rated, mood='draw', draw='3', beside='1'), ['422','Failed to load'])
        page.wait_for_selector('#best-b > li')
        settled(page)
        fitted(df).save_recommender(second)
        name = json.loads((second/'manifest.json').read_text(encoding='utf-8'))['checksum'][:12]
        until(page, "name => fetch('beside/version').then(o => o.json()).then(o => o.model===name)", name)
        page.locator('#redraw').click()
        until(page, "o => document.querySelector('#name-b').textContent.includes(o)", name[:7])
        settled(page)
        new = load_recommender(second).fold_in(pd.DataFrame(rated, columns=['title','rating']))
        assert titles(page, '#best-b')==new.recommend(n=10).title.tolist()
        assert page.locator('#trouble').is_hidden() and page.locator('#trouble-b').is_hidden()
        page.route('**/beside/recommend', lambda o: o.fulfill(status=422, body='{"detail": "not today"}'))
        star(page, '#offers .rater', 0, 1)
        page.wait_for_selector('#trouble-b')
        settled(page)
        assert page.locator('#trouble-b').inner_text()=='not today' and page.locator('#trouble').is_hidden()
        assert len(titles(page))==10 and titles(page, '#best-b')==[]

def test_a_rating_in_the_dialog_changes_its_guess(opened, urls, folders, df):
    "And the table that adds up to it; starting over during a question leaves nothing busy"
    rated = [(o, 5) for o in df.title.unique()[:3]]
    film = df.title.unique()[20]
    page = opened(address(urls['stars'], *rated, film=film))
    page.wait_for_selector('#parts tr')
    settled(page)
    star(page, '#film-rating .rater', 0, 1)
    new = load_recommender(folders['stars']).fold_in(pd.DataFrame([*rated,(film,1)], columns=['title','rating']))
    until(page, "o => document.querySelector('#parts tr:last-child td').textContent===o", f'{new.predict(film):.2f}')
    page.keyboard.press('Escape')
    settled(page)
    page.route('**/recommend', lambda o: None)  # no answer comes
    star(page, '#offers .rater', 0, 5)
    until(page, "document.querySelector('#lists').ariaBusy==='true'")
    page.locator('#restart').click()
    until(page, "document.querySelector('#lists').ariaBusy==='false'")

@pytest.mark.long
def test_more_ratings_than_the_most_are_told(opened, urls, df):
    some = [(f'No Film {k}', 3) for k in range(1001)]
    page = opened(address(urls['stars'], *some))
    page.wait_for_selector('#notes')
    settled(page)
    assert 'Ignored in the address: 1 past the first 1000' in page.locator('#notes').inner_text()
    star(page, '#offers .rater', 0, 5)
    page.wait_for_selector('#trouble')
    assert '1000 ratings are the most' in page.locator('#trouble').inner_text() and page.locator('#offers input:checked').count()==0

@pytest.mark.long
def test_more_that_is_not_for_somebody_than_the_most_is_told(opened, urls, df):
    page = opened(address(urls['choices'], (df.title[0],'+'))+'&'+'&'.join(f'x=No+Film+{k}' for k in range(1000)))
    listed(page)
    settled(page)
    before = page.url
    page.locator('#best .not').first.click()
    page.wait_for_selector('#trouble')
    assert '1000 “Not for me” are the most' in page.locator('#trouble').inner_text() and page.url==before and titles(page)
    page.locator('#mine .not[aria-pressed=true]').first.click()  # takes one back, which makes room
    page.wait_for_selector('#trouble', state='hidden')
    settled(page)
    page.locator('#best .not').first.click()
    settled(page)
    assert page.locator('#trouble').is_hidden() and page.url.count('x=')==1000

@pytest.mark.long
def test_a_long_title_is_rated_like_any_other(opened, df, tmp_path):
    long = 'A very long title. '*50
    folder = fitted(df.assign(title=df.title.astype(str).replace(df.title.value_counts().index[0], long.strip()))).save_recommender(tmp_path/'films')
    with Background(app(folder)) as service:
        page = opened(service.url)
        page.wait_for_selector('#offers > li')
        star(page, '#offers .rater', 0, 5)
        listed(page)
        page.reload()
        listed(page)
        settled(page)
        assert page.evaluate("document.querySelector('#mine > li').item")==long.strip() and page.locator('#notes').is_hidden()

def test_who_is_told_to_come_again_does(opened, urls):
    page = opened(urls['stars'], ['503'])
    page.wait_for_selector('#offers > li')
    told = []
    def busy(route):
        told.append(route)
        if len(told)<3: route.fulfill(status=503, headers={'retry-after': '0.01'}, body='{"detail": "too many ask at once"}')
        else: route.continue_()
    page.route('**/recommend', busy)
    star(page, '#offers .rater', 0, 5)
    listed(page)
    assert len(told)==3 and page.locator('#trouble').is_hidden()

def test_a_token_is_asked_for_and_kept_in_the_tab(opened, folders, tmp_path, df):
    file = tmp_path/'token'
    file.write_text('a-long-secret-of-mine', encoding='utf-8')
    file.chmod(0o600)
    with Background(app(folders['stars'], token=file)) as service:
        page = opened(address(service.url, (df.title[0],5)), ['401'])
        page.wait_for_selector('#key')
        for _ in range(3): page.keyboard.press('Escape')
        until(page, "document.querySelector('#key').open && document.activeElement.id==='token'")
        for text in ('wrong-secret','a-long-secret-of-mine'):
            page.fill('#token', text)
            page.keyboard.press('Enter')
            if text=='wrong-secret': page.wait_for_selector('#wrong')
        listed(page)
        page.reload()
        listed(page)
        assert 'secret' not in page.url and page.evaluate('localStorage.length')==0

@pytest.mark.long
def test_a_token_that_no_header_can_hold_is_asked_for_again(opened, folders, tmp_path, df):
    "Whether it is typed, in the address, or kept from before"
    file = tmp_path/'token'
    file.write_text('a-long-secret-of-mine', encoding='utf-8')
    file.chmod(0o600)
    with Background(app(folders['stars'], token=file)) as service:
        page = opened(f'{service.url}/#token=тайна-тайна-тайна', ['401'])
        page.wait_for_selector('#key')
        page.fill('#token', 'тайна-тайна-тайна')
        page.keyboard.press('Enter')
        page.wait_for_selector('#wrong')
        page.evaluate("sessionStorage.setItem('token', 'тайна')")
        page.reload()
        page.fill('#token', 'a-long-secret-of-mine')
        page.keyboard.press('Enter')
        page.wait_for_selector('#offers > li')

@pytest.mark.long
def test_a_late_refusal_does_not_ask_for_the_token_again(opened, urls, df):
    "Of two questions with a token that has run out, one is refused after another was given"
    page = opened(urls['stars']+'/#token=the-one-of-yesterday', ['401'])  # from which it is taken away at once
    page.wait_for_selector('#offers > li')
    assert 'token' not in page.url and page.evaluate("sessionStorage.getItem('token')")=='the-one-of-yesterday'
    held = []
    page.route('**/search?*', lambda o: o.continue_() if held else held.append(o))
    page.fill('#typed', df.title[0])
    until(page, "document.body.dataset.asking==='1'")
    page.route('**/recommend', lambda o: o.fulfill(status=401, body='{}'), times=1)
    star(page, '#offers .rater', 0, 5)
    page.wait_for_selector('#key')
    page.fill('#token', 'the-one-of-today')
    page.keyboard.press('Enter')
    listed(page)
    held[0].fulfill(status=401, body='{}')
    page.wait_for_selector('#found > li')
    assert page.locator('#key').is_hidden()

# ------------------------------------------------------------------ where it stands
class Notebook(http.server.BaseHTTPRequestHandler):
    "A page that shows `shown` in a frame"
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-type', 'text/html')
        self.end_headers()
        self.wfile.write(f'<!doctype html><title>notebook</title>{self.server.shown}'.encode())
    def log_message(self, *args): pass

def test_a_notebook_shows_it_and_no_other_page(opened, urls, df):
    server = http.server.ThreadingHTTPServer(('127.0.0.1',0), Notebook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f'http://localhost:{server.server_port}'
    with fitted(df).play(height=500) as playing:
        server.shown = playing._repr_html_()
        page = opened(host, [playing.service.url,'favicon','404'])
        frame = page.frame_locator('iframe')
        frame.locator('#offers .rater').first.locator('label').nth(4).click()
        frame.locator('#best > li').first.wait_for()
        assert playing.token not in ''.join(o.url for o in page.frames) and frame.locator('#key').is_hidden()
        page.context.grant_permissions(['clipboard-read','clipboard-write'])
        frame.locator('#share').click()
        frame.locator('text=Copied').wait_for()
        copied = opened(page.evaluate('navigator.clipboard.readText()'))  # which brings its token, and what was rated
        listed(copied)
        assert len(titles(copied, '#mine'))==1 and copied.locator('#key').is_hidden() and 'token' not in copied.url
    server.shown = f'<iframe src="{urls["stars"]}/"></iframe>'
    page = opened(host, ['frame-ancestors','X-Frame-Options','Frame-Options','favicon','404',urls['stars']])
    until(page, "document.readyState==='complete'")
    until(page, said='frame-ancestors')
    assert page.frame_locator('iframe').locator('#offers').count()==0
    server.shutdown()

def test_an_untrained_learner_is_told_what_to_do(df):
    learn = learner(RecDataLoaders.from_df(df, seed=0), seed=0)
    with pytest.warns(UserWarning, match=r'nothing was fitted here.*learn.fit_blend\(\)'): learn.play().stop()

@pytest.mark.parametrize('leave', ['back',*seldom('close'),'two'])
def test_what_is_rated_in_a_film_stays_when_it_is_left(opened, urls, df, leave):
    page = opened(address(urls['stars'], (df.title.unique()[0],5)))
    listed(page)
    film = titles(page)[1]
    page.locator('#best .title').nth(1).click()
    page.wait_for_selector('#film[open]')
    star(page, '#film-rating .rater', 0, 4)
    settled(page)
    if leave=='two':
        page.locator('#alike .title').first.click()
        until(page, "t => document.querySelector('#film-title').textContent!==t", film)
    if leave=='back': page.go_back()
    else: page.locator('#close').click()
    page.wait_for_selector('#film', state='hidden')
    until(page, "location.hash.includes('r=4') && !location.hash.includes('film=')")
    settled(page)
    assert film in titles(page, '#mine')

def test_a_film_is_left_by_a_press_next_to_it_alone(opened, urls, df):
    "What grows or is drawn on while it is pressed ends elsewhere than it began, and stays"
    page = opened(address(urls['stars'], (df.title.unique()[0],5)))
    listed(page)
    page.locator('#best .title').first.click()
    page.wait_for_selector('#film[open]')
    top = page.locator('#film').bounding_box()['y']
    page.wait_for_selector('#film-why')
    page.wait_for_selector('#alike .title')
    assert page.locator('#film').bounding_box()['y']==top
    box = page.locator('#film-title').bounding_box()
    page.mouse.move(box['x']+5, box['y']+5)
    page.mouse.down()
    page.mouse.move(4, 4)
    page.mouse.up()
    settled(page)
    assert page.locator('#film').is_visible()
    page.mouse.click(4, 4)
    page.wait_for_selector('#film', state='hidden')

def test_the_same_star_again_takes_a_rating_back_and_a_double_click_rates_once(opened, urls):
    page = opened(urls['stars'])
    page.wait_for_selector('#offers .rater')
    page.locator('#offers .rater').nth(2).locator('label').nth(4).dblclick()
    listed(page)
    settled(page)
    assert len(titles(page, '#mine'))==1
    page.wait_for_timeout(600)  # longer than what is taken for a double click
    star(page, '#mine .rater', 0, 5)
    until(page, "document.querySelector('#mine-box').hidden")
    assert 'r=' not in page.url
