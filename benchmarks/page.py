"""The page of the service in a Chromium, at ml-1m's size: the first paint, and from a new rating to the new list; writes results/page.md"""
import shutil,sys,tempfile
from statistics import median,quantiles
from playwright.sync_api import sync_playwright
from report import Report,settings
from service import Service
from fastrec.all import *

chromium = shutil.which('chromium') or shutil.which('google-chrome') or shutil.which('chromium-browser')

listening = """() => {  // milliseconds from each click to the list that follows, as it is painted
    window.waits = []
    addEventListener('click', e => { if (e.target.type==='radio') window.clicked = performance.now() }, true)
    new MutationObserver(() => requestAnimationFrame(() => setTimeout(() => {
        if (window.clicked!==null) waits.push(performance.now()-clicked)
        window.clicked = null
    }))).observe(document.querySelector('#best'), {childList: true})
}"""

def paints(browser, url, n):
    "Milliseconds to the first paint of `n` windows, each new"
    for _ in range(n):
        page = browser.new_context().new_page()
        page.goto(url, wait_until='networkidle')
        yield page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        page.context.close()

def ratings(browser, url, n):
    "Milliseconds from each of `n` ratings, given one after another, to the new list"
    page = browser.new_context().new_page()
    page.goto(url, wait_until='networkidle')
    page.evaluate(listening)
    for k in range(n):
        page.evaluate("document.querySelector('#offers .rater input:nth-of-type(%d)').click()" % (k%5+1))
        page.wait_for_load_state('networkidle')
        page.wait_for_timeout(700)  # for the map, too
    return page.evaluate('waits')

def measure(rep, c, name, folder):
    "The rows of the model in the `folder`, called `name`"
    service = Service(folder, 1)
    url = f'http://127.0.0.1:{service.port}/'
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        ms = [*paints(browser, url, c.getint('paints'))]
        rep.add(f'`{name}`: first paint, median and worst of {len(ms)}', f'**{median(ms):.0f}, {max(ms):.0f} ms**', f'≤ {c["max_paint"]} ms')
        ms = ratings(browser, url, c.getint('ratings'))
        rep.add(f'`{name}`: from a rating to the new list as it is painted, median and 95th of a hundred, {len(ms)} ratings',
                f'**{median(ms):.0f}, {quantiles(ms, n=20)[-1]:.0f} ms**', f'≤ {c["max_list"]} ms')
        browser.close()
    service.stop()

def main(*folders):
    "Measure the page of `folders` of `fit_blend` and of one with draws, which are made if they are not given"
    c,rep = settings['page'],Report('page', 'what', 'measured', 'to reach')
    with tempfile.TemporaryDirectory() as d:
        if not folders:
            dls = RecDataLoaders.from_movielens('ml-1m', seed=0)
            for stars in ('fit_als','fit_bayes'):
                learn = dot_learner(dls, seed=0)
                with learn.no_bar(),learn.no_logging(): learn.fit_blend(ratings=stars)
                folders = *folders,learn.save_recommender(Path(d)/stars, ratings=True)
        for name,o in zip(('fit_blend()',"fit_blend(ratings='fit_bayes')"), folders): measure(rep, c, name, o)
    rep.write()

if __name__=='__main__': main(*sys.argv[1:])
