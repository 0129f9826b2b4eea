// A runner of named steps: each passes, fails, or is skipped because an earlier one it needs failed.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

const shots = process.env.TRAM_SHOTS
if (shots) mkdirSync(shots, { recursive: true })

export class Steps {
  passed = 0
  failed = 0
  page = null

  /** Runs one step; returns false when it failed, with a picture of the page if there is a place for it. */
  async step(name, run) {
    const started = performance.now()
    try {
      await run()
      this.passed += 1
      console.log(`ok    ${name}  (${((performance.now() - started) / 1000).toFixed(1)} s)`)
      return true
    } catch (error) {
      this.failed += 1
      console.log(`FAIL  ${name}\n      ${String(error?.message ?? error).split('\n').slice(0, 6).join('\n      ')}`)
      if (this.page) await shoot(this.page, `failed-${this.failed}`).catch(() => undefined)
      return false
    }
  }

  /** Prints the sum and returns the exit code. */
  finish() {
    console.log(`${this.passed} passed, ${this.failed} failed`)
    return this.failed === 0 ? 0 : 1
  }
}

export async function shoot(page, name) {
  if (shots) await page.screenshot({ path: join(shots, `${name}.png`) })
}

export function check(condition, message) {
  if (!condition) throw new Error(message)
}

/** Waits until `probe` gives something true; the last value seen is part of the complaint. */
export async function until(what, probe, timeout = 15_000, every = 200) {
  const end = Date.now() + timeout
  let last
  for (;;) {
    last = await probe()
    if (last) return last
    if (Date.now() > end) throw new Error(`${what}: not within ${timeout / 1000} s (last: ${JSON.stringify(last)})`)
    await new Promise((resolve) => setTimeout(resolve, every))
  }
}
