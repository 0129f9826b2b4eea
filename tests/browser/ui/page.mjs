// What is asked of every page.
import { readFileSync } from 'node:fs'
import { consoleRequire } from '../lib/deps.mjs'
import { check } from '../lib/steps.mjs'

const axe = readFileSync(consoleRequire.resolve('axe-core/axe.min.js'), 'utf8')

export async function accessible(page, name) {
  // Overlays fade in; half-shown text has half its contrast.
  await page.waitForTimeout(350)
  await page.evaluate(axe)
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))
  const found = violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).slice(0, 3).join(' | ')}`)
  check(found.length === 0, `${name}: ${found.join('\n')}`)
  const h1 = await page.locator('h1').count()
  check(h1 === 1, `${name}: ${h1} h1 elements`)
}

export const noSideways = async (page, name) => {
  const [scroll, client] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth])
  check(scroll <= client, `${name}: the page is ${scroll} px wide in a window of ${client}`)
}
