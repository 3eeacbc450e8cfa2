// The scale of a model's ratings, from what the service says about it.

export const clean = o => Number(o.toPrecision(7))  // of the digits that single precision adds
const isOn = (o, step) => Math.abs(o / step - Math.round(o / step)) < 1e-4
const steps = [4, 3, 2, 1, 0, -1, -2, -3, -4].flatMap(k => [5, 2, 1].map(o => clean(o * 10 ** k)))
const mostSteps = 200, someSteps = 40

// from one rating to the next: as in training if that is known, otherwise guessed from the ends
function stepOf(low, high, told) {
  const span = high - low, ends = step => isOn(low, step) && isOn(high, step)
  if (told && isOn(span, told) && span / told <= mostSteps) return clean(told)
  for (const step of [1, .5]) if (!told && ends(step) && span > 1 && span <= mostSteps * step) return step
  return steps.find(o => ends(o) && span / o >= someSteps && span / o <= mostSteps) ?? clean(span / 100)
}

// what ratings a model knows: only likes, or values from `low` to `high` in steps, shown as stars if there are `values`
export function scaleOf({of, rating_range: range, rating_step: told}) {
  if (of === 'preference' || !range) return {likes: true, fits: o => o === '+', read: () => 1, write: () => '+'}
  const [low, high] = range.map(clean), step = stepOf(low, high, told), span = high - low
  const fits = text => text.trim() !== '' && Number(text) >= low && Number(text) <= high
  const digits = span <= 1 ? 2 : 1, places = Math.max(digits, [1, 2, 3].find(o => isOn(step, 10 ** -o)) ?? 0)
  const common = {low, high, step, digits, places, fits, read: Number, write: String}
  const unit = step === .5 ? .5 : isOn(step, 1) ? 1 : 0  // of stars; no stars if a rating can be 0 or .7
  if (!unit || !isOn(low, unit) || low < .5 || low > 2 || high < 3 || high > 5) return common
  const values = []
  for (let o = low; o <= high; o += unit) values.push(o)
  return {...common, values, halves: unit < 1}
}
