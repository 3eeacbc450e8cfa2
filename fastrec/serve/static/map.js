// The map of tastes: a dot for each title, names if there is room, and arrow keys that move from dot to dot.

// a function that draws `you` and the spots, the most important first. Each has an item, a kind, a place, whether it `matters`, what is
// `said` about it, and a `number` to write in its dot if there is no room for the name. `open` gets the item that is chosen; `short` cuts a name
export function tasteMap(map, {open, short}) {
  let shown = null
  const redraw = () => { if (shown && map.checkVisibility()) draw(map, short, ...shown) }
  map.onclick = e => {
    const spot = e.target.closest('.spot')
    if (spot) open(spot.item)
  }
  map.onkeydown = e => {
    const spot = e.target.closest('.spot'), way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key]
    if (!spot) return
    if (['Enter', ' '].includes(e.key)) open(spot.item)
    else if (way) moveTo(nearest(map, spot, way), spot)
    else return
    e.preventDefault()
  }
  new ResizeObserver(redraw).observe(map)
  return (you, spots) => {
    shown = [you, spots]
    redraw()
  }
}

const svg = (tag, attributes = {}, ...inside) => {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [k, v] of Object.entries(attributes)) made.setAttribute(k, v)
  made.append(...inside)
  return made
}

const narrow = 500, longNames = 40, shortNames = 26  // pixels; letters

function draw(map, short, you, spots) {
  const xs = ends([you, ...spots].map(o => o.x)), ys = ends([you, ...spots].map(o => o.y)), edge = 24
  map.style.setProperty('--tall', ys.size / xs.size)
  const {width, height} = map.getBoundingClientRect()
  const scaled = Math.min((width - 2 * edge) / xs.size, (height - 2 * edge) / ys.size)  // the same for both, so what looks closest is closest
  const place = o => ({x: width / 2 + scaled * (o.x - xs.middle), y: height / 2 - scaled * (o.y - ys.middle)})
  const all = spots.map(o => ({...o, text: short(o.item, width < narrow ? shortNames : longNames), ...place(o)}))
  const at = place(you)
  writeLabels(map, all, at, width, height)
  const marker = svg('g', {class: 'you', 'aria-hidden': true}, svg('circle', {r: 26}), svg('circle', {r: 9}), svg('text', {'text-anchor': 'middle', y: -14}, 'you'))
  marker.setAttribute('transform', `translate(${at.x} ${at.y})`)
  const held = document.activeElement?.closest?.('#map .spot')?.item
  map.setAttribute('viewBox', `0 0 ${width} ${height}`)
  const lines = all.filter(o => o.label && hasLine(o.side)).map(({x, y, side}) => svg('line', {x1: x, y1: y, x2: x + side.x, y2: y + lineEnd(side)}))
  map.replaceChildren(...lines, ...all.reverse().map(drawSpot), marker)
  map.classList.toggle('numbered', all.some(o => o.number && !o.label))
  const spotElements = [...map.querySelectorAll('.spot')]
  const first = spotElements.find(o => o.item === held) ?? spotElements.at(-1)
  first?.setAttribute('tabindex', 0)
  if (held !== undefined) first?.focus({preventScroll: true})
}

function ends(values) {
  const low = Math.min(...values), high = Math.max(...values)
  return {size: high - low || 1e-9, middle: (low + high) / 2}
}

function drawSpot(o) {
  const {x, y, anchor} = o.side
  const text = svg('text', {x: o.x + x, y: o.y + y + 4, 'text-anchor': anchor}, o.text)
  const number = o.number && !o.label ? [svg('text', {class: 'number', x: o.x, y: o.y + 4, 'text-anchor': 'middle'}, o.number)] : []
  const circle = svg('circle', {cx: o.x, cy: o.y, r: number.length ? 8 : o.kind === 'other' ? 4 : 6})
  const wide = svg('circle', {cx: o.x, cy: o.y, r: 12, 'fill-opacity': 0})  // for fingers
  const made = svg('g', {class: `spot ${o.kind}${o.label ? '' : ' dumb'}`, role: 'button', tabindex: -1, 'aria-label': o.said ? `${o.item}, ${o.said}` : o.item}, wide, circle, text, ...number)
  made.item = o.item
  made.place = o
  return made
}

// ---------------- where the names are

const pen = document.createElement('canvas').getContext('2d')
const nearby = 16
const sides = [{x: 8, y: 0, anchor: 'start'}, {x: -8, y: 0, anchor: 'end'}, {x: 0, y: -15, anchor: 'middle'}, {x: 0, y: 15, anchor: 'middle'},
  ...[-12, 12].flatMap(y => [{x: 6, y, anchor: 'start'}, {x: -6, y, anchor: 'end'}])]
const farther = [22, 34, 48, 64, 82].flatMap(d => [0, .3, -.3, .6, -.6, 1, -1].flatMap(part => [-1, 1].flatMap(up => {
  const x = part * d, y = up * (d - Math.abs(x) / 3)
  return [{x, y, anchor: 'start'}, {x, y, anchor: 'end'}, {x, y, anchor: 'middle'}]
})))
const partsBefore = {start: 0, middle: .5, end: 1}
const meets = (a, b) => a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1

const hasLine = ({x, y}) => Math.hypot(x, y) > nearby
const lineEnd = ({y}) => y - Math.sign(y) * 9

// the line from a dot to its name, as small boxes
function lineTo(o, {side}) {
  const n = Math.ceil(Math.hypot(side.x, side.y) / 4), parts = Array.from({length: n}, (_, k) => k / n)
  return parts.map(part => ({x: o.x + part * side.x, y: o.y + part * lineEnd(side)})).map(({x, y}) => ({x0: x - 1, x1: x + 1, y0: y - 1, y1: y + 1}))
}

// give each of `all`, in order, a label if there is still room for it
function writeLabels(map, all, you, width, height) {
  pen.font = getComputedStyle(map).font
  const dots = all.map(o => ({x0: o.x - 5, x1: o.x + 5, y0: o.y - 5, y1: o.y + 5, of: o}))
  const own = {x0: you.x - 16, x1: you.x + 16, y0: you.y - 28, y1: you.y + 10}, taken = []
  const isInside = o => o.x0 >= 0 && o.x1 <= width && o.y0 >= 0 && o.y1 <= height
  const lines = [], isClear = (box, all) => isInside(box) && !all.some(o => meets(o, box))
  const isFree = (box, one, ofAll) => isClear(box, [own, ...taken, ...lines]) && !dots.some(o => o.of !== one && (ofAll || o.of.matters) && meets(o, box))
  for (const o of all) {
    const wide = pen.measureText(o.text).width + 4
    const boxAt = side => {
      const x0 = o.x + side.x - 2 - partsBefore[side.anchor] * (wide - 4), y = o.y + side.y
      return {side, x0, x1: x0 + wide, y0: y - 9, y1: y + 9}
    }
    const near = sides.map(boxAt), far = () => farther.map(boxAt).find(box => isFree(box, o, false) && lineTo(o, box).every(part => isClear(part, taken)))
    const box = near.find(box => isFree(box, o, true)) ?? (o.matters ? near.find(box => isFree(box, o, false)) ?? far() : undefined)  // it may cover dots that do not matter
    o.label = Boolean(box)
    o.side = box?.side ?? {x: Math.max(Math.min(8, width - wide - o.x), -o.x), y: o.y < 30 ? 15 : -15, anchor: 'start'}  // shown if the mouse is on it
    if (box) taken.push(box)
    if (box && hasLine(box.side)) lines.push(...lineTo(o, box))
  }
}

// ---------------- from one to the next

function nearest(map, spot, [dx, dy]) {  // in a direction; distance to the side counts twice
  const way = o => {
    const x = o.place.x - spot.place.x, y = o.place.y - spot.place.y, along = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx)
    return along > 0 ? along + 2 * aside : Infinity
  }
  const [best] = [...map.querySelectorAll('.spot')].sort((a, b) => way(a) - way(b))
  return way(best) < Infinity ? best : spot
}

function moveTo(spot, from) {
  from.setAttribute('tabindex', -1)
  spot.setAttribute('tabindex', 0)
  spot.focus()
}
