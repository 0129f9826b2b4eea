// Chromium as the tests want it, without a download and without calling home.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { consoleRequire } from './deps.mjs'

const { chromium } = consoleRequire('playwright-core')

const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/** Opens a fresh profile; every request that leaves `origin` and every page error is noted in `faults`. */
export async function openBrowser(origin, { width = 1280, height = 860, language = 'vi', dark = false } = {}) {
  const profile = mkdtempSync(join(tmpdir(), 'tram-browser-'))
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: ARGS,
    ignoreHTTPSErrors: true,
    viewport: { width, height },
    colorScheme: dark ? 'dark' : 'light',
    reducedMotion: 'reduce',
  })
  const faults = []
  const host = new URL(origin).host
  await context.addInitScript((chosen) => {
    if (!localStorage.getItem('tram.lang')) localStorage.setItem('tram.lang', chosen)
  }, language)
  context.on('request', (request) => {
    const url = new URL(request.url())
    if (['http:', 'https:', 'ws:', 'wss:'].includes(url.protocol) && url.host !== host) faults.push(`outside request: ${request.url()}`)
  })
  const page = context.pages()[0] ?? (await context.newPage())
  page.on('pageerror', (error) => faults.push(`page error: ${error.message}`))
  page.on('console', (message) => {
    const text = message.text()
    if (message.type() === 'error' && /Content Security Policy|Refused to/.test(text)) faults.push(text)
  })
  page.setDefaultTimeout(15_000)
  return {
    context,
    page,
    faults,
    async close() {
      await context.close()
      rmSync(profile, { recursive: true, force: true })
    },
  }
}
