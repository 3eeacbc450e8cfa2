// A page to try a recommender. Ratings are in the address, answers come from the service, and the service keeps nothing.
// Its answers are put into the page as text, never as HTML.

import {ask, reason, recall, Refused, tokenGiven} from './ask.js'
import {tasteMap} from './map.js'
import {clean, scaleOf} from './scale.js'

const $ = id => document.getElementById(id)
const offered = 6, offersKnown = 100, listed = 10, onMap = 150, longest = 4096, mostRatings = 1000  // as the service has it
const whenTyped = 120, mostNamed = 5  // milliseconds; of those left out

// ---------------- the state of the page, all of it in the address

const state = {ratings: new Map(), hidden: new Set(), mood: 'best', draw: 0, variety: 0, film: null, beside: false}
let about = null, other = null, scale = null, popular = [], firstOffer = 0, misfits = {}

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1))
  const texts = asked.getAll('r')
  state.ratings.clear()
  misfits = {unread: [], unfit: [], again: [], more: texts.slice(mostRatings).map(o => o.slice(o.indexOf('~') + 1))}
  for (const text of texts.slice(0, mostRatings)) {
    const [, value, item] = text.match(/^([^~]*)~(.+)$/s) ?? []
    const why = !item || !isShort(item) ? 'unread' : !scale.fits(value) ? 'unfit' : state.ratings.has(item) ? 'again' : null
    if (why) misfits[why].push(why === 'unread' ? text : why === 'unfit' ? `${value.trim() || 'nothing'} for ${item}` : item)
    else state.ratings.set(item, scale.read(value))
  }
  const hidden = asked.getAll('x').filter(o => o && isShort(o) && !state.ratings.has(o))
  state.hidden = new Set(hidden.slice(0, mostRatings))  // each once, and none is both liked and hidden
  state.mood = about.varied && ['safe', 'draw'].includes(asked.get('mood')) ? asked.get('mood') : 'best'
  state.draw = whole(asked.get('draw'), about.draws)
  state.variety = !about.alike ? 0 : Math.min(Math.max(Number(asked.get('variety')) || 0, 0), .9)
  state.film = asked.get('film')
  state.beside = Boolean(about.beside) && asked.has('beside')
}

const isShort = text => [...text].length <= longest

function whole(text, below) {
  const n = Number(text)
  return Number.isInteger(n) && n >= 0 && n < below ? n : 0
}

function address() {
  const told = new URLSearchParams()
  for (const [item, value] of state.ratings) told.append('r', `${scale.write(value)}~${item}`)
  for (const item of state.hidden) told.append('x', item)
  if (state.mood !== 'best') told.set('mood', state.mood)
  if (state.mood === 'draw') told.set('draw', state.draw)
  if (state.variety) told.set('variety', state.variety)
  if (state.beside) told.set('beside', '1')
  if (state.film !== null) told.set('film', state.film)
  return `#${told}`
}

const writeAddress = () => history.replaceState(history.state, '', address())

// ---------------- asking the service

// the ratings as the `model` gets them, since its scale may be another
function person(model = about) {
  const give = ratingFor(model)
  return {ratings: [...state.ratings].map(([item, value]) => ({item, ...give(value)}))}
}

// a value as the `model` gets it: cut off at the ends if its range is nearly the same as this one, otherwise converted
function ratingFor(model) {
  if (scaleOf(model).likes) return () => ({})
  const [low, high] = model.rating_range
  if (scale.likes) return () => ({rating: high})
  const isMapped = isElsewhere(model), share = value => (value - scale.low) / (scale.high - scale.low)
  return value => ({rating: Math.min(Math.max(isMapped ? low + share(value) * (high - low) : value, low), high)})
}

const alikeFrom = .7  // of two ranges together, in both: .5 to 5 and 1 to 5 are one scale, 1 to 5 and 0 to 10 are two

function isElsewhere(model) {
  const {low, high, likes} = scaleOf(model)
  if (likes || scale.likes || high === low) return false
  const both = Math.min(high, scale.high) - Math.max(low, scale.low), all = Math.max(high, scale.high) - Math.min(low, scale.low)
  return both < alikeFrom * all
}

// what to say about the ratings that the second model got
function retold(model) {
  const {likes, low, high} = scaleOf(model)
  if (likes !== scale.likes) return likes ? 'The second model only knows choices: it takes everything you rated as chosen.' : `The second model knows ratings: it takes what you like as rated ${round(high)}.`
  return isElsewhere(model) ? `The second model rates from ${round(low)} to ${round(high)}: your ratings, from ${round(scale.low)} to ${round(scale.high)}, were converted to its scale.` : ''
}

async function listFrom(model, signal) {
  const where = model === about ? '' : 'beside/'
  const q = {...person(model), n: listed, diversity: model.alike ? state.variety : 0, exclude: [...state.hidden]}
  const told = {why: 2, std: model.draws > 1}
  const by = model.varied && {safe: {z: -1}, draw: {draw: state.draw % model.draws}}[state.mood]
  if (!by) return ask(`${where}recommend`, {...q, ...told}, signal)
  const ranked = await ask(`${where}recommend`, {...q, ...by}, signal)  // without reasons, which only the mean has
  if (!ranked.items.length) return ranked
  const items = ranked.items.map(o => o.item)
  const found = await ask(`${where}recommend`, {...person(model), ...told, items, n: items.length}, signal)
  const lines = new Map(found.items.map(o => [o.item, o]))
  return {...ranked, items: ranked.items.map(o => ({...o, ...lines.get(o.item)}))}
}

// ---------------- ways to rate

const did = () => scale.likes ? 'like' : 'rated'
const shown = value => scale.values ? `${round(value)} ★` : round(value)
const round = value => String(Number(value.toFixed(scale.places ?? 1)))
const spoken = value => scale.values ? `${round(value)} ${value === 1 ? 'star' : 'stars'}` : round(value)

// each is an element that knows its `item`, how to `show` its rating, and what a key does that is not left to the browser

function rater(item) {
  const made = scale.likes ? likes(item) : scale.values ? stars(item) : number(item)
  made.item = item
  made.classList.add('rater')
  made.onkeydown = e => {
    if (e.ctrlKey || e.altKey || e.metaKey) return  // these are for the browser
    if (['Delete', 'Backspace'].includes(e.key) && state.ratings.has(item)) takeBack(made)
    else if (!made.press?.(e.key) && !toRow(made, e.key)) return
    e.preventDefault()
  }
  made.show()
  return made
}

function takeBack(rater) {
  rater.focusable().focus({preventScroll: true})  // the button may disappear
  rate(rater.item, null)
}

// up and down go from row to row, and from the first result back to the search; they rate nothing
function toRow(rater, key) {
  const row = rater.closest('.rows > li'), way = {ArrowUp: 'previousElementSibling', ArrowDown: 'nextElementSibling'}[key]
  if (!row || !way) return false
  const to = row[way]?.querySelector('.rater').focusable() ?? (key === 'ArrowUp' && row.closest('#found') ? $('typed') : null)
  to?.focus()
  return true
}

let nGroups = 0
function stars(item) {
  const box = el('fieldset', {className: 'stars'}, el('legend', {className: 'unseen'}, `Your rating of ${item}`)), name = `g${nGroups++}`
  box.classList.toggle('halves', scale.halves)
  box.style.setProperty('--low', scale.low)
  for (const value of scale.values) {
    const id = `${name}-${value}`
    const radio = el('input', {type: 'radio', name, id, value})
    const label = el('label', {htmlFor: id, title: spoken(value), className: value === scale.low ? 'first' : Number.isInteger(value) && scale.halves ? 'second' : ''})
    label.append(el('span', {className: 'unseen'}, spoken(value)))
    radio.onchange = () => rate(item, value)
    label.onclick = e => {
      const isGiven = state.ratings.get(item) === value
      if (isGiven || e.detail > 1) e.preventDefault()  // the second of two clicks may hit the next row
      if (isGiven && e.detail < 2) rate(item, null)
    }
    box.append(radio, label)
  }
  const radios = [...box.querySelectorAll('input')]
  box.setAttribute('aria-describedby', 'keys')
  box.press = key => {  // the browser's own arrows would rate in passing
    const at = radios.indexOf(document.activeElement), to = {ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: radios.length - 1}
    if (key in to) radios[to[key]]?.focus()
    else if (key === 'Enter') radios[at].click()
    else if (scale.values.includes(Number(key))) {
      rate(item, Number(key))
      if (box.isConnected) box.focusable().focus()  // the arrows continue from there
    } else return ['ArrowUp', 'ArrowDown'].includes(key) && !box.closest('.rows')
    return true
  }
  box.show = () => { for (const o of radios) o.checked = Number(o.value) === state.ratings.get(item) }
  box.focusable = () => box.querySelector('input:checked') ?? box.querySelector('input')
  return box
}

function number(item) {
  const {low, high, step} = scale
  const range = el('input', {type: 'range', min: low, max: high, step, ariaLabel: `Your rating of ${item}, from ${round(low)} to ${round(high)}`}), out = el('output')
  const ends = el('span', {className: 'ends', ariaHidden: true}, el('span', {}, round(low)), el('span', {}, round(high)))
  const value = () => clean(Number(range.value))
  range.setAttribute('aria-describedby', 'keys')
  range.oninput = () => {
    box.classList.remove('unset')
    out.textContent = range.ariaValueText = `${round(value())}?`
  }
  range.onchange = () => rate(item, value())
  const giveAsIs = () => { if (box.isConnected && !state.ratings.has(item)) rate(item, value()) }  // a press where the slider already is makes no change event
  range.onclick = e => { if (e.detail < 2) giveAsIs() }
  range.onpointerup = e => { if (e.pointerType !== 'mouse') setTimeout(giveAsIs) }  // a finger makes no click on a slider
  range.onblur = () => box.show()
  const back = el('button', {type: 'button', className: 'back', title: 'Take back', ariaLabel: `Take back your rating of ${item}`}, '✕')
  back.onclick = () => takeBack(box)
  const box = el('div', {className: 'number'}, el('span', {className: 'rail'}, range, ends), out, back)
  box.press = key => {  // only moves; the browser's own arrows would rate in passing
    if (document.activeElement !== range) return false
    const ways = {ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity}
    if (!box.closest('.rows')) Object.assign(ways, {ArrowDown: -1, ArrowUp: 1})
    const isUnset = box.classList.contains('unset')
    if (key in ways) {
      range.value = Math.min(Math.max(Number(range.value) + ways[key] * step, low), high)
      range.oninput()
    } else if (!['Enter', ' '].includes(key)) return false
    else if (isUnset) range.oninput()  // first shows the value, a second press gives it
    else rate(item, value())
    return true
  }
  box.show = () => {
    const given = state.ratings.get(item), isSet = given !== undefined
    box.classList.toggle('unset', !isSet)
    back.classList.toggle('away', !isSet)
    range.value = given ?? (low + high) / 2
    out.textContent = isSet ? round(given) : '–'
    range.ariaValueText = isSet ? round(given) : 'not rated'
  }
  box.focusable = () => range
  return box
}

function likes(item) {
  const like = el('button', {type: 'button', className: 'like', title: 'Like', ariaLabel: `Like ${item}`})
  const not = el('button', {type: 'button', className: 'like not', title: 'Not for me: leave this off my list', ariaLabel: `Not for me: ${item}`})
  like.onclick = () => rate(item, state.ratings.has(item) ? null : 1)
  not.onclick = () => hide(item)
  const box = el('div', {className: 'likes'}, like, not)
  box.show = () => {
    like.ariaPressed = state.ratings.has(item)
    not.ariaPressed = state.hidden.has(item)
  }
  box.focusable = () => like
  return box
}

function rate(item, value) {
  if (value === null) state.ratings.delete(item)
  else if (!canHold(item, state.ratings, scale.likes ? 'likes' : 'ratings')) return
  else state.ratings.set(item, value)
  state.hidden.delete(item)
  say(value === null ? `${item} is no longer ${scale.likes ? 'liked' : 'rated'}` : scale.likes ? `You like ${item}` : `${spoken(value)} for ${item}`)
  changed()
}

// does `held` have room for the `item`, by the limits of the service? If not, the page says so
function canHold(item, held, name) {
  if (held.has(item)) return true
  const why = !isShort(item) ? `This title is too long: the page sends at most ${longest} letters.`
    : held.size >= mostRatings ? `${mostRatings} ${name} are the most that fit: ${short(item)} was not added.` : null
  if (!why) return true
  for (const o of document.querySelectorAll('.rater')) o.show()
  trouble(new Refused(why))
  return false
}

function hide(item) {
  if (!canHold(item, state.hidden, '“Not for me”')) return
  const isHidden = state.hidden.delete(item)
  if (!isHidden) state.hidden.add(item)
  state.ratings.delete(item)
  say(isHidden ? `${item} can be on your list again` : `Not for you: ${item}. It is left off your list; the order of the others does not change`)
  changed()
}

// ---------------- rows of titles

function el(tag, with_ = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), with_)
  made.append(...inside)
  return made
}

const shortest = 70, short = (text, n = shortest) => text.length > n ? `${[...text].slice(0, n - 1).join('')}…` : text
const bdi = text => el('bdi', {title: text.length > shortest ? text : ''}, short(text))  // in lists; the page of a film shows all of it

function row(item) {
  const title = el('button', {type: 'button', className: 'title', dir: 'auto', title: item.length > shortest ? item : ''}, item)
  title.onclick = () => openFilm(item)
  const does = el('div', {className: 'does'}, rater(item))
  const made = el('li', {}, title, does)
  made.item = item
  return made
}

// show the `lines`, whose titles are `item`, in `list`: rows that were there before stay, and glide to their new places
function fill(list, lines, detail = () => []) {
  const before = new Map([...list.children].map(o => [o.item, o]))
  const tops = new Map([...before].map(([k, o]) => [k, o.offsetTop]))
  const rows = lines.map(line => {
    const item = String(line.item), made = before.get(item) ?? row(item)
    while (made.children.length > 2) made.lastChild.remove()
    made.append(...detail(line))
    return made
  })
  keepFocus(() => list.replaceChildren(...rows))
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) return
  for (const o of rows) {
    const way = tops.has(o.item) ? tops.get(o.item) - o.offsetTop : 0
    if (way) o.animate([{transform: `translateY(${way}px)`}, {transform: 'none'}], {duration: 220, easing: 'ease-out'})
    else if (!tops.has(o.item)) o.animate([{opacity: 0}, {opacity: 1}], 220)
  }
}

// the focus stays where it was; if that row is gone, it goes to the same title among those rated, or to the search
function keepFocus(change) {
  const had = document.activeElement, item = had?.closest?.('.rows > li')?.item
  change()
  if (item === undefined || document.activeElement === had) return
  if (had.isConnected) return had.focus({preventScroll: true})
  const now = [...$('mine').children].find(o => o.item === item)
  const to = now ? now.querySelector('.rater').focusable() : $('typed')
  to.focus({preventScroll: true})
}

function guess(line, by) {  // on the scale of this model
  const value = line.prediction ?? (by.likes ? null : line.score)
  if (value === null || value === undefined) return []
  const {low, high, digits} = by, at = o => `${100 * (Math.min(Math.max(o, low), high) - low) / (high - low)}%`
  const bar = el('span', {className: 'scale', ariaHidden: true}), std = line.std ?? 0
  const number = el('b', {}, value.toFixed(digits ?? 1))
  const mark = el('span', {className: 'mark', ariaHidden: true}, by.values ? ' ★' : '')
  const text = el('span', {}, el('span', {className: 'unseen'}, 'predicted '), number, mark)
  if (line.std) {
    bar.append(el('i'))
    text.append(el('span', {className: 'quiet'}, ` ± ${std.toFixed(digits ?? 1)}`))
  }
  for (const [k, o] of Object.entries({at: value, from: value - std, to: value + std})) bar.style.setProperty(`--${k}`, at(o))
  return [text, bar]
}

function because(line) {
  const found = line.because ?? []
  if (!found.length) return el('p', {className: 'because'}, `because many ${line.count === undefined ? 'like' : did()} it`)
  const each = found.flatMap((o, k) => {
    const own = state.ratings.get(String(o.item))
    const gave = scale.likes || own === undefined ? '' : ` (${shown(own)})`
    return [k ? ' and ' : '', bdi(String(o.item)), gave]
  })
  return el('p', {className: 'because'}, `because you ${did()} `, ...each)
}

function inList(by, another) {
  const places = another && new Map(another.items.map((o, k) => [o.item, k + 1]))
  return line => {
    const place = places?.get(line.item)
    const badge = !places ? [] : [el('span', {className: place ? 'badge' : 'badge new'}, place ? `#${place} there` : 'only here')]
    return [el('div', {className: 'guess'}, ...guess(line, by), ...badge), because(line)]
  }
}

// ---------------- after a change

let asking = null, first = null, lines = [], isWished = false

function changed() {
  $('undo-box').hidden = true
  writeAddress()
  refresh()  // first, so that the service works meanwhile
  for (const o of document.querySelectorAll('.rater')) o.show()
  showYou()
  if (state.film !== null) showWhy()
}

function showYou() {
  const isNew = !state.ratings.size && !state.hidden.size
  const mine = [...state.ratings.keys(), ...state.hidden].reverse().map(item => ({item}))
  fill($('mine'), mine)
  $('mine-title').textContent = scale.likes ? 'You said' : `You rated ${state.ratings.size}`
  $('mine-box').hidden = isNew
  $('mine-hidden').hidden = !state.hidden.size
  $('actions').hidden = isNew
  showOffers()
}

function showOffers() {
  const left = popular.filter(o => !state.ratings.has(String(o.item)) && !state.hidden.has(String(o.item)))
  const first = firstOffer < left.length ? firstOffer : 0
  fill($('offers'), left.slice(first, first + offered))
  $('offers-box').hidden = !left.length
  $('others').hidden = left.length <= offered
}

async function refresh() {
  asking?.abort()
  const mine = asking = new AbortController()
  showWishes()
  const isEmpty = !state.ratings.size
  $('empty').hidden = !isEmpty
  $('lists').hidden = $('wishes').hidden = isEmpty
  $('jump').hidden = isEmpty
  try {
    if (isEmpty) {
      lines = []
      $('lists').ariaBusy = false  // the list is no longer waited for
      showNotes([])
    } else await showLists(mine.signal)
    trouble(null)
    await showMap(mine.signal)
  } catch (e) { if (!mine.signal.aborted) trouble(e) }
}

async function showLists(signal) {
  $('lists').ariaBusy = true
  try {
    const [one, two] = await Promise.allSettled([currentList(false, signal), state.beside && currentList(true, signal)])
    signal.throwIfAborted()
    if (one.reason) throw one.reason
    const a = one.value, b = two.value || undefined
    first = a
    lines = a.items
    showMeaning(a, b)
    showRank()
    fill($('best'), a.items, inList(scale, b))
    fill($('best-b'), b?.items ?? [], inList(b && scaleOf(other), a))
    $('lists').classList.toggle('two', state.beside)
    $('second').hidden = $('name-a').hidden = !state.beside
    $('trouble-b').hidden = !two.reason
    $('trouble-b').textContent = two.reason ? reason(two.reason) : ''
    showNotes([a, b].filter(Boolean))
    say(`${isWished ? meaning(about, a) : say.text} Your list: ${a.items.slice(0, 3).map((o, k) => `${k + 1}, ${short(String(o.item))}`).join('; ')}`)
    isWished = false
  } finally { if (!signal.aborted) $('lists').ariaBusy = false }
}

const kindOf = model => JSON.stringify([model.of, model.rating_range, model.rating_step, model.draws, model.varied, model.alike, model.columns])

// the list of the model, or of the second one; if the service has loaded a new one meanwhile, it is asked again
async function currentList(isSecond, signal) {
  const had = isSecond ? other : about
  try {
    const found = await listFrom(had, signal)
    if (found.model === had.model) return found
  } catch (e) { if (!(e instanceof Refused)) throw e }  // the new one may refuse what the old one took
  const now = await ask(isSecond ? 'beside/version' : 'version', null, signal)
  if (isSecond) other = now
  else {
    if (kindOf(now) !== kindOf(had)) return leave()
    about = now
  }
  if (other) showNames()
  return listFrom(now, signal)
}

function leave() {  // all ratings are in the address
  location.reload()
  return new Promise(() => {})
}

function showNotes(lists) {
  const notes = new Set(lists.flatMap(o => o.notes ?? []))
  for (const {unknown = [], items} of lists) {
    if (unknown.length) notes.add(`Not known here: ${some(unknown.map(String))}.`)
    if (!items.length) notes.add('There is nothing left to recommend.')
  }
  for (const [why, those] of Object.entries(misfits)) if (those.length) notes.add(`Ignored in the address: ${those.length} ${misfit(why)}: ${some(those)}.`)
  $('notes').textContent = [...notes].join(' ')
  $('notes').hidden = !notes.size
}

function some(names) {
  const told = names.slice(0, mostNamed).map(o => short(o, 40))
  return [...told, ...names.length > mostNamed ? [`and ${names.length - mostNamed} more`] : []].join('; ')
}

function misfit(why) {
  if (why === 'unfit') return scale.likes ? 'with a rating, but this recommender only knows likes' : `not rated from ${round(scale.low)} to ${round(scale.high)}`
  return {unread: 'that cannot be read', again: 'repeated (the first one counts)', more: `past the first ${mostRatings}`}[why]
}

const sureness = '± shows how sure a prediction is: most ratings, two out of three or more, are closer than that.'
const withDraws = 'a model with draws, for example one by fit_bayes'

// what orders each of two lists, said only once if it is the same
function showMeaning(a, b) {
  const told = [meaning(about, a), b && meaning(other, b)], isOne = !b || told[0] === told[1]
  const isSure = [a, b].some(o => o?.items.some(o => o.std)), hasNone = !scale.likes && !b && about.draws < 2
  const hint = isSure ? sureness : hasNone && `To see how sure a guess is, or to get surprises, you need ${withDraws}.`
  $('meaning').textContent = [isOne && told[0], b && retold(other), hint].filter(Boolean).join(' ')
  for (const [k, id] of ['meaning-a', 'meaning-b'].entries()) {
    $(id).textContent = told[k] ?? ''
    $(id).hidden = isOne
  }
}

// what the `list` of the `model` is ordered by
function meaning(model, list) {
  const {likes, values} = scaleOf(model), predicted = values ? 'predicted stars' : 'predicted rating'
  if (list.by === 'popular') return `The model knows nothing that you ${did()}, so this is what many people ${likes ? 'choose' : 'rated'}, whatever your taste.`
  const isBlend = list.items.some(o => o.prediction !== undefined)
  const ranked = likes ? 'What fits best with what you like comes first.'
    : isBlend ? `What people of your taste choose and like comes first. Both count, the ${predicted} and how likely you are to choose it, so a lower prediction can be above a higher one.`
    : 'What you are predicted to rate highest comes first.'
  const moods = model.draws > 1 ? {
    safe: 'What you are unlikely to dislike: ranked by the lower end of each guess.',
    draw: 'Many tastes fit what you said, and one of them, drawn at random, ranks this list. Predictions and reasons are from the mean of all.',
  } : {safe: `Safe needs ${withDraws}. This one has none, so you see the best: `, draw: `Surprise me needs ${withDraws}. This one has none, so you see the best: `}
  const mood = moods[state.mood] ?? ''
  const told = [mood.endsWith(': ') ? mood + ranked[0].toLowerCase() + ranked.slice(1) : mood || ranked]
  if (state.variety && model.alike) told.push('With variety, what differs from those above it moves up, even if its prediction is lower.')
  return told.join(' ')
}

function showWishes() {
  $('wishes').elements.mood.value = state.mood
  $('redraw').hidden = state.mood !== 'draw'
  $('variety').parentElement.hidden = !about.alike
  $('variety').value = state.variety
  $('variety').ariaValueText = state.variety ? `${Math.round(100 * state.variety)} percent` : 'none'
  $('beside').checked = state.beside
}

function trouble(e) {
  $('trouble').hidden = !e
  if (!e) return
  $('trouble').firstElementChild.textContent = reason(e)
  if (!(e instanceof Refused || e instanceof TypeError)) throw e
}

function say(text) {  // for screen readers
  say.text = text
  clearTimeout(say.later)
  say.later = setTimeout(() => { $('said').textContent = text; say.text = '' }, 300)
}
say.text = ''

// ---------------- the map

const named = 12, close = 3  // of those rated, before the list; of those closest to you
const drawMap = tasteMap($('map'), {open: item => openFilm(item), short})

async function showMap(signal) {
  if (!about.alike) return
  const items = [...lines.map(o => String(o.item)), ...state.ratings.keys()].slice(0, mostRatings)
  const {items: known, others, you} = await ask('map', {...person(), n: onMap, items}, signal)
  $('map-box').hidden = false
  const spots = [...new Map([...known, ...others].map(o => [String(o.item), {...o, item: String(o.item)}])).values()]
  document.querySelector('.is-listed').textContent = `on ${listName()}`
  const near = spots.filter(o => !state.ratings.has(o.item)).sort((a, b) => away(a, you) - away(b, you)).slice(0, close)
  $('near').replaceChildren(...near.length && state.ratings.size ? ['Closest to you: ', ...near.flatMap((o, k) => [k ? ' · ' : '', bdi(o.item)])] : [])
  drawMap(you, inOrder(spots, near))
}

const away = (o, you) => Math.hypot(o.x - you.x, o.y - you.y)

// those rated, the highest first, then the list, then the closest, then the best known
function inOrder(spots, near) {
  const rated = [...state.ratings].reverse().sort((a, b) => b[1] - a[1]).map(([item]) => item), list = lines.map(o => String(o.item))
  const first = [...rated.slice(0, named), ...list, ...near.map(o => o.item), ...rated.slice(named)]
  const ranks = new Map(first.map((item, k) => [item, k]).reverse()), rank = o => ranks.get(o.item) ?? first.length
  return [...spots].sort((a, b) => rank(a) - rank(b)).map(o => {
    const number = list.indexOf(o.item) + 1, kind = state.ratings.has(o.item) ? 'rated' : number ? 'listed' : 'other'
    const said = {rated: `you ${did()} it`, listed: `number ${number} on ${listName()}`, other: ''}[kind]
    return {...o, kind, number: kind === 'listed' ? number : 0, matters: ranks.has(o.item), said}
  })
}

// ---------------- one film

function openFilm(item) {
  if (state.film === item) return
  state.film = item
  history.pushState({films: (history.state?.films ?? 0) + 1}, '', address())  // so that the browser's back button closes it
  showFilm()
}

let asked = null, explaining = null

async function showFilm() {
  const item = state.film
  asked?.abort()
  explaining?.abort()
  if (item === null) return $('film').close()
  const mine = asked = new AbortController()
  $('film-title').textContent = item
  $('film-rating').replaceChildren(rater(item))
  $('film-guess').replaceChildren()
  $('film-why').hidden = $('film-alike').hidden = true
  if (!$('film').open) $('film').showModal()
  $('film').scrollTop = 0
  $('film-title').focus()
  showWhy()
  await showAlike(item, mine.signal).catch(e => { if (!mine.signal.aborted) filmTrouble(e) })
}

function filmTrouble(e) {
  $('film-guess').textContent = reason(e)
}

async function showAlike(item, signal) {
  if (!about.alike) return
  const found = await ask(`similar?${new URLSearchParams({item, n: 5})}`, null, signal)
  $('alike').replaceChildren()
  fill($('alike'), found.items)
  $('film-alike').hidden = !found.items.length
}

const partNames = {mean: 'the average of all ratings', item: 'what others think of it', 'average user': 'what the average taste adds',
  features: 'what is known about you', together: 'your ratings together', chance: 'chance: tastes are drawn at random', remainder: 'the rest', range: 'the ends of the scale'}

async function showWhy() {
  explaining?.abort()
  if (scale.likes) return
  const mine = explaining = new AbortController()
  if (state.ratings.size) return explain(state.film, mine.signal).catch(e => { if (!mine.signal.aborted) filmTrouble(e) })
  $('film-guess').replaceChildren()
  $('film-why').hidden = true
}

function showRank() {
  const place = lines.findIndex(o => String(o.item) === state.film)
  $('film-rank').textContent = place < 0 ? '' : `Number ${place + 1} on ${listName()}. ${meaning(about, first)}`
}

async function stdOf(item, signal) {
  if (about.draws < 2) return null
  const {items: [found]} = await ask('predict', {...person(), items: [item]}, signal)
  return found.std
}

async function explain(item, signal) {
  const [found, std] = await Promise.all([ask('explain', {...person(), item}, signal), stdOf(item, signal)])
  const off = std ? ` ± ${std.toFixed(scale.digits)}` : ''
  $('film-guess').replaceChildren(`Predicted for you${state.beside ? ` by ${hasNames() ? about.folder : 'the first model'}` : ''}: `, el('b', {}, shown(found.prediction)), off)
  showRank()
  $('film-sure').textContent = std ? sureness : ''
  const line = (name, value) => {
    const cell = el('td', {className: value < 0 ? 'less' : ''}, `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(2)}`)
    return el('tr', {}, el('th', {scope: 'row'}, name), cell)
  }
  const size = o => Math.abs(o.contribution), rated = found.parts.filter(o => o.part === 'rated').sort((a, b) => size(b) - size(a))
  const own = rated.slice(0, 4), rest = rated.slice(4).reduce((sum, o) => sum + o.contribution, 0)
  const others = found.parts.filter(o => o.part !== 'rated' && size(o) >= .005)
  const rows = others.map(o => line(partNames[o.part] ?? o.part, o.contribution))
  rows.push(...own.map(o => line(el('span', {}, bdi(String(o.item)), `, ${shown(o.rating)}`), o.contribution)))
  if (rest) rows.push(line('your other ratings', rest))
  rows.push(el('tr', {}, el('th', {scope: 'row'}, 'together'), el('td', {}, found.prediction.toFixed(2))))
  $('parts').replaceChildren(...rows)
  $('film-why').hidden = false
}

$('film').onclose = () => {
  if (state.film === null) return
  if (history.state?.films) return history.go(-history.state.films)  // to where films were opened
  state.film = null
  writeAddress()
}
let pressed = null  // where: a click also counts as one next to the film if what was pressed moves away under the pointer
$('film').onpointerdown = e => { pressed = e.target }
$('film').onclick = e => { if (e.target === $('film') && pressed === $('film')) $('film').close() }  // next to it
$('close').onclick = () => $('film').close()

// ---------------- typing and clicking

let typing = null, typed = null

$('typed').oninput = () => {
  clearTimeout(typing)
  typing = setTimeout(search, whenTyped)
}

async function search() {
  const q = $('typed').value.trim()
  typed?.abort()
  const mine = typed = new AbortController()
  if (!q) {
    $('found-box').hidden = true
    $('found').replaceChildren()
    return
  }
  try {
    const found = await ask(`search?${new URLSearchParams({q, n: 6})}`, null, mine.signal)
    fill($('found'), found.items)
    $('found').hidden = !found.items.length
    $('none').hidden = Boolean(found.items.length)
    $('none').textContent = `No title found for “${q}”.`
    $('found-box').hidden = false
    say(found.items.length ? `${found.items.length} found` : 'nothing found')
  } catch (e) { if (!mine.signal.aborted) trouble(e) }
}

document.querySelector('.search').onsubmit = e => {
  e.preventDefault()
  search()
}

document.querySelector('.search').onkeydown = e => {
  if (e.key === 'ArrowDown' && e.target === $('typed')) $('found').querySelector('.rater')?.focusable().focus()
  else if (e.key === 'Escape') {
    $('typed').value = ''
    search()
    $('typed').focus()
  } else return
  e.preventDefault()
}

$('others').onclick = () => {
  firstOffer += offered
  if (firstOffer >= popular.length) firstOffer = 0
  showOffers()
}

$('wishes').onsubmit = e => e.preventDefault()
$('wishes').onchange = e => {
  const mood = $('wishes').elements.mood.value
  if (mood === 'draw' && state.mood !== 'draw') drawAnother()
  state.mood = mood
  state.variety = Number($('variety').value)
  state.beside = $('beside').checked
  isWished = true
  changed()
}

function drawAnother() { state.draw = (state.draw + 1 + Math.floor(Math.random() * (about.draws - 1))) % about.draws }

$('redraw').onclick = () => {
  drawAnother()
  changed()
}

$('restart').onclick = () => {
  history.pushState(null, '', location.hash)  // so that the browser's back button brings it back, too
  Object.assign(state, {mood: 'best', variety: 0, beside: false})
  state.ratings.clear()
  state.hidden.clear()
  changed()
  $('undo-box').hidden = false
  $('undo').focus()
  say('Started over.')
}

$('undo').onclick = () => {
  $('undo-box').hidden = true
  history.back()
  $('typed').focus()
  say('Everything is back.')
}

const isFramed = window.top !== window  // by learn.play(), which already has the token; in its own tab the page would ask for it

function link() {
  const told = new URLSearchParams(address().slice(1))
  if (isFramed && tokenGiven()) told.set('token', tokenGiven())
  return `${location.origin}${location.pathname}#${told}`
}

$('share').onclick = async () => {
  try {
    await navigator.clipboard.writeText(link())
    $('share').textContent = 'Copied'
  } catch { $('share').textContent = isFramed ? 'Copying is not allowed here' : 'Copy the address above' }
  say($('share').textContent)
  setTimeout(() => { $('share').textContent = 'Copy link' }, 2000)
}

$('jump').onclick = e => {
  e.preventDefault()
  $('list').scrollIntoView({behavior: 'smooth'})
  $('list-title').focus({preventScroll: true})
}
new IntersectionObserver(([seen]) => $('jump').classList.toggle('there', seen.isIntersecting)).observe($('list-title'))

// ---------------- start

function fromAddress() {
  $('undo-box').hidden = true
  readAddress()
  for (const o of document.querySelectorAll('.rater')) o.show()
  showYou()
  showFilm()
  refresh()
}

const measures = {rmse: 'RMSE', ndcg_at_10: 'NDCG@10'}
const measuresOf = model => Object.keys(measures).filter(o => Number.isFinite(model.metrics[o]))

// the measures that both have and that can be compared
function commonMeasures() {
  const both = measuresOf(about).filter(o => measuresOf(other).includes(o))
  return isElsewhere(other) ? both.filter(o => o !== 'rmse') : both
}

const hasNames = () => Boolean(about.folder && other.folder && about.folder !== other.folder)  // that tell the two apart
const folderOf = model => hasNames() ? model.folder : model === about ? 'this' : 'beside'
const listName = () => !state.beside ? 'your list' : hasNames() ? `the list of ${about.folder}` : 'the first list'

function nameOf(model) {
  const common = commonMeasures(), told = common.length ? common : measuresOf(model).slice(0, 1)
  const values = told.map(o => `${measures[o]} ${Number(model.metrics[o]).toFixed(3)}`)
  return [folderOf(model), model.fit ?? 'model', ...values, model.model.slice(0, 7)].join(' · ')
}

function showNames() {
  $('name-a').textContent = nameOf(about)
  $('name-b').textContent = nameOf(other)
}

// what has an English plural: the last word of a column's name
const english = new Set(['album', 'anime', 'article', 'artist', 'asin', 'beer', 'book', 'business', 'code', 'content', 'course', 'film',
  'game', 'hotel', 'id', 'isbn', 'item', 'joke', 'key', 'movie', 'name', 'offer', 'paper', 'place', 'podcast', 'product', 'recipe',
  'restaurant', 'series', 'show', 'sku', 'song', 'story', 'title', 'track', 'venue', 'video', 'wine'])

// the name of a column in a sentence, singular or plural by `n`: a word loses its capital, an acronym does not; in another language it is no word
function wordOf(column, n) {
  const word = /^\p{Lu}\p{Ll}+$/u.test(column) ? column.toLowerCase() : column
  const last = word.split(/[^\p{L}]+|(?<=\p{Ll})(?=\p{Lu})/u).filter(o => o).pop()?.toLowerCase() ?? ''
  if (!english.has(last) && !english.has(last.replace(/s$/, '')) && !/^\p{Lu}+$/u.test(word)) return n === 1 ? 'item' : 'items'
  if (n === 1 || /s$/i.test(word)) return word
  return /[^aeiou]y$/.test(word) ? `${word.slice(0, -1)}ies` : /(x|z|ch|sh)$/.test(word) ? `${word}es` : `${word}s`
}

async function begin() {
  recall()
  about = await ask('version')
  scale = scaleOf(about)
  const howMany = new Intl.NumberFormat('en').format(about.items)
  document.querySelector('[for=typed]').textContent = `Search ${howMany} ${wordOf(about.columns.item, about.items)}`
  const way = scale.likes ? 'likes' : scale.values ? 'stars' : 'number'
  for (const o of document.querySelectorAll(`[data-${way}]`)) o.textContent = o.dataset[way]
  if (about.varied) $('moods').hidden = false
  if (about.beside) {
    other = await ask('beside/version')
    $('beside-box').hidden = false
    showNames()
  }
  if (about.popular) popular = (await ask('recommend', {n: offersKnown})).items
  fromAddress()
}

const start = () => begin().then(() => trouble(null), trouble)
$('again').onclick = () => about ? changed() : start()
window.onpopstate = () => {
  if (!about) return
  if (state.film === null) return fromAddress()
  state.film = new URLSearchParams(location.hash.slice(1)).get('film')  // back from a film; what was rated meanwhile stays
  writeAddress()
  showFilm()
}
start()
