// An officer at work in the browser while things fail: told what to do line by line, answers with a line of JSON each.
//   TRAM_URL=https://127.0.0.1:8443 TRAM_ACCOUNT='{"username","password"}' [TRAM_SHOTS=folder] node tests/browser/failures.mjs
// open: the desktop is on the screen.  over TEXT: what lies over it once that says TEXT.  again: its first button, until
// the desktop is back.
// alive: the desktop is on the screen and answers.
import { createInterface } from 'node:readline'
import { openBrowser } from './lib/browser.mjs'
import { screen, signIn, viewerPhase, waitForScreen } from './lib/console.mjs'
import { shoot, until } from './lib/steps.mjs'

const url = process.env.TRAM_URL
const PATIENCE_MS = 120_000
// A simulated desktop's picture has few colours.
const COLOURS = 2

const browser = await openBrowser(url)
const { page } = browser
let shots = 0

async function open() {
  await until('the desktop', async () => (await viewerPhase(page)) === 'open', PATIENCE_MS)
  return waitForScreen(page, COLOURS, PATIENCE_MS)
}

const does = {
  async begin() {
    await signIn(page, url, JSON.parse(process.env.TRAM_ACCOUNT))
    await page.getByRole('button', { name: /^(Mở|Quay lại) máy trạm ảo$/ }).click()
    await page.locator('.viewer').waitFor()
    return open()
  },
  open,
  async over(wanted) {
    const over = page.locator('.viewer-over')
    const text = await until(wanted, async () => {
      const said = await over.innerText({ timeout: 1000 }).catch(() => '')
      return said.includes(wanted) ? said : null
    }, PATIENCE_MS, 50)
    shots += 1
    await shoot(page, `failure-${shots}-${wanted}`)
    return { text, phase: await viewerPhase(page) }
  },
  async again() {
    const button = page.locator('.viewer-over').getByRole('button').first()
    await until('the desktop', async () => {
      const phase = await viewerPhase(page)
      // As a person would: what is only coming up again says so once more.
      if (phase === 'closed' || phase === 'failed') await button.click({ timeout: 1000 }).catch(() => undefined)
      return phase === 'open'
    }, PATIENCE_MS, 1000)
    return {}
  },
  async alive() {
    const before = (await screen(page)).print
    // Each key colours a simulated desktop anew.
    await until('an answer', async () => {
      await page.keyboard.press('x')
      return (await viewerPhase(page)) === 'open' && (await screen(page)).print !== before
    }, PATIENCE_MS)
    return {}
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const [word, ...rest] = line.split(' ')
  try {
    console.log(JSON.stringify(await does[word](rest.join(' '))))
  } catch (error) {
    const shown = await page.locator('body').innerText().catch(() => '')
    console.log(JSON.stringify({ error: `${line}: ${error?.message ?? error}; the page: ${shown.slice(0, 600)}` }))
  }
}
await browser.close()
