// How the page asks the service: with the token that was entered, and again if the service says to try later.

const $ = id => document.getElementById(id)
const busyAfter = 3  // attempts

export class Refused extends Error {}
let token = null, showingKey = null

export const tokenGiven = () => token

export function recall() {
  const told = new URLSearchParams(location.hash.slice(1)), given = told.get('token')
  if (given !== null) {  // by learn.play(), in the part of an address that is never sent
    if (isSendable(given)) remember(given)
    told.delete('token')
    history.replaceState(null, '', `${location.pathname}${told.size ? `#${told}` : ''}`)
  }
  try { token ??= sessionStorage.getItem('token') } catch { /* in a frame of another page there may be no storage */ }
  if (token !== null && !isSendable(token)) token = null
}

const isSendable = text => /^[\x20-\x7e]+$/.test(text)  // a header can't have other letters, and fetch would refuse them

function remember(text) {
  token = text
  try { sessionStorage.setItem('token', text) } catch { /* then only until the page is closed */ }
}

let nOpen = 0  // questions, so that others can wait until all are answered

export async function ask(...question) {
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
      if (token === sent) await askForToken(sent !== null)  // otherwise it was entered meanwhile
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

function askForToken(isWrong) {  // only once, however many questions wait for it
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

$('key').onclose = () => { if (showingKey) $('key').showModal() }  // the page is of no use without it

export const reason = e => e instanceof TypeError ? 'The service does not answer. Is it still running?' : e.message
