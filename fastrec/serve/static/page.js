// A page to try a recommender. What somebody rates is in the address, what it leads to comes from the service, and the service
// keeps nothing. Whatever comes from there is put into the page as text, never as HTML.

const $ = id => document.getElementById(id)
const offered = 6, offersKnown = 100, listed = 10, onMap = 150, longest = 4096, mostRatings = 1000  // the last two as the service has them
const whenTyped = 120, busyAfter = 3  // milliseconds; attempts

// ---------------- what the page is: all of it in the address

const state = {ratings: new Map(), hidden: new Set(), mood: 'best', draw: 0, variety: 0, film: null, beside: false}
let about = null, other = null, scale = null, popular = [], firstOffer = 0, misfits = {}

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1))
  const texts = asked.getAll('r')
  state.ratings.clear()
  misfits = {unread: 0, unfit: 0, again: 0, more: Math.max(texts.length - mostRatings, 0)}
  for (const text of texts.slice(0, mostRatings)) {
    const [, value, item] = text.match(/^([^~]*)~(.+)$/s) ?? []
    const why = !item || !isShort(item) ? 'unread' : !scale.fits(value) ? 'unfit' : state.ratings.has(item) ? 'again' : null
    if (why) misfits[why]++
    else state.ratings.set(item, scale.read(value))
  }
  const hidden = asked.getAll('x').filter(o => o && isShort(o) && !state.ratings.has(o))
  state.hidden = new Set(hidden.slice(0, mostRatings))  // each once, and nobody both likes and hides one
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

class Refused extends Error {}
let token = null, showingKey = null

function recall() {
  const told = new URLSearchParams(location.hash.slice(1)), given = told.get('token')
  if (given !== null) {  // by learn.play(), in the part of an address that is never sent
    if (isSendable(given)) remember(given)
    told.delete('token')
    history.replaceState(null, '', `${location.pathname}${told.size ? `#${told}` : ''}`)
  }
  try { token ??= sessionStorage.getItem('token') } catch { /* a frame of another page may have no storage */ }
  if (token !== null && !isSendable(token)) token = null
}

const isSendable = text => /^[\x20-\x7e]+$/.test(text)  // a header holds no other letters, and fetch would refuse to ask

function remember(text) {
  token = text
  try { sessionStorage.setItem('token', text) } catch { /* until the page is left, then */ }
}

let nOpen = 0  // questions, for who waits until all are answered

async function ask(...question) {
  document.body.dataset.asking = ++nOpen
  try { return await answerTo(...question) } finally { document.body.dataset.asking = --nOpen }
}

async function answerTo(path, question, signal) {
  const sent = token
  const asking = {signal, headers: token ? {authorization: `Bearer ${token}`} : {}}
  if (question) {
    asking.method = 'POST'
    asking.headers['content-type'] = 'application/json'
    asking.body = JSON.stringify(question)
  }
  for (let attempt = 1; ; attempt++) {
    const answer = await fetch(path, asking)
    if (answer.status === 401) {
      if (token === sent) await askForToken(sent !== null)  // else it was given meanwhile
      return answerTo(path, question, signal)
    }
    if (answer.status === 503 && attempt < busyAfter) {
      await new Promise(go => setTimeout(go, 1000 * (Number(answer.headers.get('retry-after')) || 1)))
      continue
    }
    if (answer.ok) return answer.json()
    throw new Refused(await reasonOf(answer))
  }
}

async function reasonOf(answer) {
  const said = await answer.json().catch(() => ({}))
  const detail = Array.isArray(said.detail) ? [...new Set(said.detail.map(o => o.msg))].join('; ') : said.detail
  return detail ?? `The service answered ${answer.status}.`
}

function askForToken(isWrong) {  // once, however many questions wait for it
  showingKey ??= new Promise(done => {
    $('wrong').hidden = !isWrong
    $('token').value = ''
    $('key').showModal()
    $('key').querySelector('form').onsubmit = e => {
      const given = $('token').value.trim()
      $('wrong').hidden = isSendable(given)
      if (!isSendable(given)) return e.preventDefault()
      remember(given)
      showingKey = null
      done()
    }
  })
  return showingKey
}

$('key').onclose = () => { if (showingKey) $('key').showModal() }  // there is nothing behind it

// what somebody rated, as the `model` is told of it: another may have another scale
function person(model = about) {
  const give = ratingFor(model)
  return {ratings: [...state.ratings].map(([item, value]) => ({item, ...give(value)}))}
}

// how the `model` is told of a value: to the ends of its range where that is nearly this one, else along it
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

// what is to be said of how the second model was told
function retold(model) {
  const {likes, low, high} = scaleOf(model)
  if (likes !== scale.likes) return likes ? 'The second model knows choices alone: whatever you rated counts there as chosen.' : `The second model knows ratings: what you like counts there as ${round(high)}.`
  return isElsewhere(model) ? `The second model rates from ${round(low)} to ${round(high)}: your ratings, from ${round(scale.low)} to ${round(scale.high)}, were put on its scale.` : ''
}

async function listFrom(model, signal) {
  const where = model === about ? '' : 'beside/'
  const q = {...person(model), n: listed, diversity: model.alike ? state.variety : 0, exclude: [...state.hidden]}
  const told = {why: 2, std: model.draws > 1}
  const by = model.varied && {safe: {z: -1}, draw: {draw: state.draw % model.draws}}[state.mood]
  if (!by) return ask(`${where}recommend`, {...q, ...told}, signal)
  const ranked = await ask(`${where}recommend`, {...q, ...by}, signal)  // which has no reasons: those are of the mean
  if (!ranked.items.length) return ranked
  const items = ranked.items.map(o => o.item)
  const found = await ask(`${where}recommend`, {...person(model), ...told, items, n: items.length}, signal)
  const lines = new Map(found.items.map(o => [o.item, o]))
  return {...ranked, items: ranked.items.map(o => ({...o, ...lines.get(o.item)}))}
}

// ---------------- ways to rate

function scaleOf({of, rating_range: range}) {
  if (of === 'preference' || !range) return {likes: true, fits: o => o === '+', read: () => 1, write: () => '+'}
  const clean = o => Number(o.toPrecision(7))  // of what single precision adds
  const [low, high] = range.map(clean)
  const fits = text => text.trim() !== '' && Number(text) >= low && Number(text) <= high
  const span = high - low, digits = span <= 1 ? 2 : 1, isWhole = Number.isInteger(low) && Number.isInteger(high)
  const common = {low, high, digits, fits, read: Number, write: String}
  if (![.5, 1].includes(low) || high < 3 || high > 5) {  // no stars: how would somebody give none, or .7 of one?
    return {...common, step: isWhole && span > 1 && span <= 200 ? 1 : clean(span / 100)}
  }
  const halves = !isWhole, values = []
  for (let o = low; o <= high; o += halves ? .5 : 1) values.push(o)
  return {...common, values, halves}
}

const did = () => scale.likes ? 'like' : 'rated'
const shown = value => scale.values ? `${round(value)} ★` : round(value)
const round = value => String(Number(value.toFixed(scale.digits ?? 1)))
const spoken = value => scale.values ? `${round(value)} ${value === 1 ? 'star' : 'stars'}` : round(value)

// each is an element that knows its `item`, how to `show` what that was given, and what a key does, where it is not the browser's

function rater(item) {
  const made = scale.likes ? likes(item) : scale.values ? stars(item) : number(item)
  made.item = item
  made.classList.add('rater')
  made.onkeydown = e => {
    if (e.ctrlKey || e.altKey || e.metaKey) return  // the browser's own
    if (['Delete', 'Backspace'].includes(e.key) && state.ratings.has(item)) takeBack(made)
    else if (!made.press?.(e.key) && !toRow(made, e.key)) return
    e.preventDefault()
  }
  made.show()
  return made
}

function takeBack(rater) {
  rater.focusable().focus({preventScroll: true})  // the button may go away
  rate(rater.item, null)
}

// the arrows up and down lead from row to row, and from the first that was found back to the search; they rate nothing
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
  for (const value of scale.values) {
    const id = `${name}-${value}`
    const radio = el('input', {type: 'radio', name, id, value})
    const label = el('label', {htmlFor: id, title: spoken(value), className: Number.isInteger(value) && scale.halves ? 'second' : ''})
    label.append(el('span', {className: 'unseen'}, spoken(value)))
    radio.onchange = () => rate(item, value)
    label.onclick = e => {
      const isGiven = state.ratings.get(item) === value
      if (isGiven || e.detail > 1) e.preventDefault()  // the second of two clicks may have met the next row
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
      if (box.isConnected) box.focusable().focus()  // from where the arrows go on
    } else return ['ArrowUp', 'ArrowDown'].includes(key) && !box.closest('.rows')
    return true
  }
  box.show = () => { for (const o of radios) o.checked = Number(o.value) === state.ratings.get(item) }
  box.focusable = () => box.querySelector('input:checked') ?? box.querySelector('input')
  return box
}

function number(item) {
  const {low, high, step} = scale
  const range = el('input', {type: 'range', min: low, max: high, step, ariaLabel: `Your rating of ${item}`}), out = el('output')
  range.setAttribute('aria-describedby', 'keys')
  range.oninput = () => { out.textContent = range.ariaValueText = `${round(Number(range.value))}?` }
  range.onchange = () => rate(item, Number(range.value))
  range.onblur = () => box.show()
  const back = el('button', {type: 'button', className: 'back', title: 'Take back', ariaLabel: `Take back your rating of ${item}`}, '✕')
  back.onclick = () => takeBack(box)
  const box = el('div', {className: 'number'}, range, out, back)
  box.press = key => {  // moves alone, as the browser's own arrows would rate in passing
    if (document.activeElement !== range) return false
    const ways = {ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity}
    if (!box.closest('.rows')) Object.assign(ways, {ArrowDown: -1, ArrowUp: 1})
    if (key in ways) {
      range.value = Math.min(Math.max(Number(range.value) + ways[key] * step, low), high)
      range.oninput()
    } else if (['Enter', ' '].includes(key)) rate(item, Number(range.value))
    else return false
    return true
  }
  box.show = () => {
    const value = state.ratings.get(item)
    back.hidden = value === undefined
    range.value = value ?? (low + high) / 2
    out.textContent = value === undefined ? '–' : round(value)
    range.ariaValueText = value === undefined ? 'not rated' : round(value)
  }
  box.focusable = () => range
  return box
}

function likes(item) {
  const like = el('button', {type: 'button', className: 'like', title: 'Like', ariaLabel: `Like ${item}`})
  const not = el('button', {type: 'button', className: 'like not', title: 'Not for me', ariaLabel: `Not for me: ${item}`})
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

// has `held` room for the `item`, as the service takes them? If not, it is told
function canHold(item, held, name) {
  if (held.has(item)) return true
  const why = !isShort(item) ? `A title of more than ${longest} letters is more than the service takes.`
    : held.size >= mostRatings ? `${mostRatings} ${name} are the most: ${short(item)} is not one of them.` : null
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
  say(isHidden ? `${item} may be on your list again` : `Not for you: ${item}`)
  changed()
}

// ---------------- rows of titles

function el(tag, with_ = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), with_)
  made.append(...inside)
  return made
}

const shortest = 70, short = (text, n = shortest) => text.length > n ? `${[...text].slice(0, n - 1).join('')}…` : text
const bdi = text => el('bdi', {title: text.length > shortest ? text : ''}, short(text))  // in passing: the film itself has all of it

function row(item) {
  const title = el('button', {type: 'button', className: 'title', dir: 'auto', title: item.length > shortest ? item : ''}, item)
  title.onclick = () => openFilm(item)
  const does = el('div', {className: 'does'}, rater(item))
  const made = el('li', {}, title, does)
  made.item = item
  return made
}

// show the `lines`, of each of which `item` is the title, in `list`: rows that were there stay, and glide to where they are now
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

// what had the focus keeps it; where its row is gone, the same title among those that were rated gets it, or the search
function keepFocus(change) {
  const had = document.activeElement, item = had?.closest?.('.rows > li')?.item
  change()
  if (item === undefined || document.activeElement === had) return
  if (had.isConnected) return had.focus({preventScroll: true})
  const now = [...$('mine').children].find(o => o.item === item)
  const to = now ? now.querySelector('.rater').focusable() : $('typed')
  to.focus({preventScroll: true})
}

function guess(line, by) {  // on the scale that this is told by
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
  if (!found.length) return el('p', {className: 'because'}, 'because many like it')
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

// ---------------- what follows from a change

let asking = null, lines = []

function changed() {
  $('undo-box').hidden = true
  writeAddress()
  refresh()  // first: the service can think meanwhile
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
      $('lists').ariaBusy = false  // a list that was asked for is not awaited any more
      showNotes([])
    } else await showLists(mine.signal)
    trouble(null)
    await showMap(mine.signal)
  } catch (e) { if (!mine.signal.aborted) trouble(e) }
}

async function showLists(signal) {
  $('lists').ariaBusy = true
  try {
    const [first, second] = await Promise.allSettled([currentList(false, signal), state.beside && currentList(true, signal)])
    signal.throwIfAborted()
    if (first.reason) throw first.reason
    const a = first.value, b = second.value || undefined
    lines = a.items
    $('meaning').textContent = [meaning(), b && retold(other), [a, b].some(o => o?.items.some(o => o.std)) && sureness].filter(Boolean).join(' ')
    fill($('best'), a.items, inList(scale, b))
    fill($('best-b'), b?.items ?? [], inList(b && scaleOf(other), a))
    $('lists').classList.toggle('two', state.beside)
    $('second').hidden = $('name-a').hidden = !state.beside
    $('trouble-b').hidden = !second.reason
    $('trouble-b').textContent = second.reason ? reason(second.reason) : ''
    showNotes([a, b].filter(Boolean))
    say(`${say.text} Your list: ${a.items.slice(0, 3).map((o, k) => `${k + 1}, ${short(String(o.item))}`).join('; ')}`)
  } finally { if (!signal.aborted) $('lists').ariaBusy = false }
}

const kindOf = model => JSON.stringify([model.of, model.rating_range, model.draws, model.varied, model.alike, model.columns])

// the list of the model, or of the second, by the one that the service has now: after another was saved it is asked again
async function currentList(isSecond, signal) {
  const had = isSecond ? other : about
  try {
    const found = await listFrom(had, signal)
    if (found.model === had.model) return found
  } catch (e) { if (!(e instanceof Refused)) throw e }  // the new one may refuse what the old one could
  const now = await ask(isSecond ? 'beside/version' : 'version', null, signal)
  if (isSecond) other = now
  else {
    if (kindOf(now) !== kindOf(had)) return leave()
    about = now
  }
  if (other) showNames()
  return listFrom(now, signal)
}

function leave() {  // all that was rated is in the address
  location.reload()
  return new Promise(() => {})
}

function showNotes(lists) {
  const notes = new Set(lists.flatMap(o => o.notes ?? []))
  for (const {unknown = [], by, items} of lists) {
    if (unknown.length) notes.add(`Not known here: ${unknown.join(', ')}.`)
    if (by === 'popular') notes.add(`Of what you ${did()} nothing is known here; this is what many ${did()}.`)
    if (!items.length) notes.add('There is nothing left to recommend.')
  }
  for (const [why, n] of Object.entries(misfits)) if (n) notes.add(`Left out of the address: ${n} ${misfit(why)}.`)
  $('notes').textContent = [...notes].join(' ')
  $('notes').hidden = !notes.size
}

function misfit(why) {
  if (why === 'unfit') return scale.likes ? 'with a rating, where this recommender knows likes alone' : `not rated from ${round(scale.low)} to ${round(scale.high)}`
  return {unread: 'that cannot be read', again: 'there again, of which the first counts', more: `past the first ${mostRatings}`}[why]
}

const meanings = {
  safe: 'What you would hardly dislike: ranked by the lower end of each guess.',
  draw: 'One of the many tastes that fit what you said, drawn at random, ranks; what is predicted is the mean of all of them.',
}

const sureness = '± tells how sure a prediction is: two times out of three it is off by less.'

function meaning() {  // of the order of the list
  const ranked = scale.likes ? 'What goes best with what you like comes first.'
    : lines.some(o => o.prediction !== undefined) ? 'First what people of your taste choose and like: it is not ranked by the prediction alone.'
    : 'What you are predicted to rate highest comes first.'
  const told = [meanings[state.mood] ?? ranked]
  if (state.variety) told.push('What is unlike those above it moves up.')
  if (!scale.likes && about.draws < 2) told.push('How sure a guess is, and surprises, need a model with draws, as fit_bayes makes.')
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

const reason = e => e instanceof TypeError ? 'The service does not answer. Is it still running?' : e.message

function trouble(e) {
  $('trouble').hidden = !e
  if (!e) return
  $('trouble').firstElementChild.textContent = reason(e)
  if (!(e instanceof Refused || e instanceof TypeError)) throw e
}

function say(text) {  // to who listens
  say.text = text
  clearTimeout(say.later)
  say.later = setTimeout(() => { $('said').textContent = text; say.text = '' }, 300)
}
say.text = ''

// ---------------- the map

const svg = (tag, attributes = {}, ...inside) => {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [k, v] of Object.entries(attributes)) made.setAttribute(k, v)
  made.append(...inside)
  return made
}

let spots = null, you = null

async function showMap(signal) {
  if (!about.alike) return
  const found = await ask('map', {...person(), n: onMap, items: lines.map(o => o.item)}, signal)
  const all = new Map([...found.items, ...found.others].map(o => [String(o.item), o]))
  spots = [...all.values()]
  you = found.you
  $('map-box').hidden = false
  drawMap()
}

function drawMap() {
  if (!spots || $('map-box').hidden) return
  const xs = ends([you, ...spots].map(o => o.x)), ys = ends([you, ...spots].map(o => o.y)), edge = 24
  $('map').style.setProperty('--tall', ys.size / xs.size)
  const {width, height} = $('map').getBoundingClientRect()
  const scaled = Math.min((width - 2 * edge) / xs.size, (height - 2 * edge) / ys.size)  // one, so that what looks closest is closest
  const place = o => ({x: width / 2 + scaled * (o.x - xs.middle), y: height / 2 - scaled * (o.y - ys.middle)})
  const onList = new Set(lines.map(o => String(o.item)))
  const kind = o => state.ratings.has(o.item) ? 'rated' : onList.has(o.item) ? 'listed' : 'other'
  const order = {rated: 0, listed: 1, other: 2}
  const all = spots.map(o => ({...o, item: String(o.item)})).map(o => ({item: o.item, kind: kind(o), away: Math.hypot(o.x - you.x, o.y - you.y), ...place(o)}))
  all.sort((a, b) => order[a.kind] - order[b.kind] || a.away - b.away)
  const at = place(you)
  writeLabels(all, at, width, height)
  const marker = svg('g', {class: 'you', 'aria-hidden': true}, svg('circle', {r: 26}), svg('circle', {r: 9}), svg('text', {'text-anchor': 'middle', y: -14}, 'you'))
  marker.setAttribute('transform', `translate(${at.x} ${at.y})`)
  const held = document.activeElement?.closest?.('#map .spot')?.item
  $('map').setAttribute('viewBox', `0 0 ${width} ${height}`)
  $('map').replaceChildren(...all.reverse().map(drawSpot), marker)
  const spotElements = [...$('map').querySelectorAll('.spot')]
  const first = spotElements.find(o => o.item === held) ?? spotElements.at(-1)
  first?.setAttribute('tabindex', 0)
  if (held !== undefined) first?.focus({preventScroll: true})
  const near = all.filter(o => o.kind !== 'rated').sort((a, b) => a.away - b.away).slice(0, 3)
  $('near').replaceChildren(...near.length && state.ratings.size ? ['Closest to you: ', ...near.flatMap((o, k) => [k ? ' · ' : '', bdi(o.item)])] : [])
}

function ends(values) {
  const low = Math.min(...values), high = Math.max(...values)
  return {size: high - low || 1e-9, middle: (low + high) / 2}
}

function drawSpot(o) {
  const text = svg('text', {x: o.x + o.side.x, y: o.y + o.side.y + 4, 'text-anchor': o.side.anchor}, short(o.item, 40))
  const circle = svg('circle', {cx: o.x, cy: o.y, r: o.kind === 'other' ? 4 : 6})
  const wide = svg('circle', {cx: o.x, cy: o.y, r: 12, 'fill-opacity': 0})  // for fingers
  const said = {rated: `you ${did()} it`, listed: 'on your list', other: ''}[o.kind]
  const made = svg('g', {class: `spot ${o.kind}${o.label ? '' : ' dumb'}`, role: 'button', tabindex: -1, 'aria-label': said ? `${o.item}, ${said}` : o.item}, wide, circle, text)
  made.item = o.item
  made.place = o
  return made
}

const pen = document.createElement('canvas').getContext('2d')
const sides = [{x: 8, y: 0, anchor: 'start'}, {x: -8, y: 0, anchor: 'end'}, {x: 0, y: -15, anchor: 'middle'}, {x: 0, y: 15, anchor: 'middle'}]
const partsBefore = {start: 0, middle: .5, end: 1}

// give a label to each of `all`, in their order, that finds room for it beside those before
function writeLabels(all, you, width, height) {
  pen.font = getComputedStyle($('map')).font
  const taken = all.map(o => ({x0: o.x - 5, x1: o.x + 5, y0: o.y - 5, y1: o.y + 5, of: o}))
  taken.push({x0: you.x - 16, x1: you.x + 16, y0: you.y - 28, y1: you.y + 10})
  const meets = (a, b) => a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1
  const isInside = o => o.x0 >= 0 && o.x1 <= width && o.y0 >= 0 && o.y1 <= height
  for (const o of all) {
    const wide = pen.measureText(short(o.item, 40)).width + 4
    const boxes = sides.map(side => {
      const x0 = o.x + side.x - 2 - partsBefore[side.anchor] * (wide - 4), y = o.y + side.y
      return {side, x0, x1: x0 + wide, y0: y - 9, y1: y + 9}
    })
    const isFree = (box, ofAll) => isInside(box) && !taken.some(t => t.of !== o && (ofAll || t.of?.kind !== 'other') && meets(t, box))
    const box = boxes.find(box => isFree(box, true)) ?? boxes.find(box => isFree(box, o.kind === 'other'))  // what matters may cover what does not
    o.label = Boolean(box)
    o.side = box?.side ?? {x: Math.max(Math.min(8, width - wide - o.x), -o.x), y: o.y < 30 ? 15 : -15, anchor: 'start'}  // shown when it is pointed at
    if (box) taken.push(box)
  }
}

$('map').onclick = e => {
  const spot = e.target.closest('.spot')
  if (spot) openFilm(spot.item)
}

$('map').onkeydown = e => {
  const spot = e.target.closest('.spot'), way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key]
  if (!spot) return
  if (['Enter', ' '].includes(e.key)) openFilm(spot.item)
  else if (way) moveTo(nearest(spot, way), spot)
  else return
  e.preventDefault()
}

function nearest(spot, [dx, dy]) {  // in a direction; what lies aside counts twice as far
  const way = o => {
    const x = o.place.x - spot.place.x, y = o.place.y - spot.place.y, along = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx)
    return along > 0 ? along + 2 * aside : Infinity
  }
  const [best] = [...$('map').querySelectorAll('.spot')].sort((a, b) => way(a) - way(b))
  return way(best) < Infinity ? best : spot
}

function moveTo(spot, from) {
  from.setAttribute('tabindex', -1)
  spot.setAttribute('tabindex', 0)
  spot.focus()
}

new ResizeObserver(drawMap).observe($('map'))

// ---------------- one film

function openFilm(item) {
  if (state.film === item) return
  state.film = item
  history.pushState({films: (history.state?.films ?? 0) + 1}, '', address())  // so that the browser's way back closes it
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

const partNames = {mean: 'what all are given on average', item: 'what others think of it', 'average user': 'what the average taste adds',
  features: 'what is known of you', together: 'your ratings together', chance: 'chance, as tastes are drawn at random', remainder: 'the rest', range: 'the ends of the scale'}

async function showWhy() {
  explaining?.abort()
  if (scale.likes) return
  const mine = explaining = new AbortController()
  if (state.ratings.size) return explain(state.film, mine.signal).catch(e => { if (!mine.signal.aborted) filmTrouble(e) })
  $('film-guess').replaceChildren()
  $('film-why').hidden = true
}

async function explain(item, signal) {
  const found = await ask('explain', {...person(), item}, signal)
  $('film-guess').replaceChildren('Predicted for you: ', el('b', {}, shown(found.prediction)))
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
  if (history.state?.films) return history.go(-history.state.films)  // where films were opened from
  state.film = null
  writeAddress()
}
$('film').onclick = e => { if (e.target === $('film')) $('film').close() }  // beside it
$('close').onclick = () => $('film').close()

// ---------------- what somebody types and presses

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
    $('none').textContent = `Nothing here is called “${q}”.`
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
  say(meaning())
  changed()
}

function drawAnother() { state.draw = (state.draw + 1 + Math.floor(Math.random() * (about.draws - 1))) % about.draws }

$('redraw').onclick = () => {
  drawAnother()
  changed()
}

$('restart').onclick = () => {
  history.pushState(null, '', location.hash)  // so that the browser's way back brings it back, too
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
  say('All is back.')
}

const isFramed = window.top !== window  // by learn.play(), for who has the token already: in a tab of its own the page would ask for it

function link() {
  const told = new URLSearchParams(address().slice(1))
  if (isFramed && token) told.set('token', token)
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

// ---------------- begin

function fromAddress() {
  $('undo-box').hidden = true
  readAddress()
  for (const o of document.querySelectorAll('.rater')) o.show()
  showYou()
  showFilm()
  refresh()
}

function nameOf(model) {
  const measured = ['ndcg_at_10', 'rmse'].find(o => o in model.metrics)
  const value = measured ? [`${measured} ${Number(model.metrics[measured]).toFixed(3)}`] : []
  return [model.fit ?? 'model', model.model.slice(0, 7), ...value].join(' · ')
}

function showNames() {
  $('name-a').textContent = nameOf(about)
  $('name-b').textContent = nameOf(other)
}

async function begin() {
  recall()
  about = await ask('version')
  scale = scaleOf(about)
  const column = about.columns.item, plural = new Intl.NumberFormat('en').format(about.items)
  document.querySelector('[for=typed]').textContent = `Search ${plural} ${column}s`
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
  state.film = new URLSearchParams(location.hash.slice(1)).get('film')  // out of a film; what was rated meanwhile stays
  writeAddress()
  showFilm()
}
start()
