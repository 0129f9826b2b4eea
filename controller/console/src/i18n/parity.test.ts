import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import en from './en.json'
import vi from './vi.json'

type Tree = { [key: string]: string | Tree }

function flat(tree: Tree, prefix = ''): Map<string, string> {
  const all = new Map<string, string>()
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value === 'string') all.set(prefix + key, value)
    else for (const [k, v] of flat(value, `${prefix}${key}.`)) all.set(k, v)
  }
  return all
}

const viKeys = flat(vi)
const enKeys = flat(en)
const blanks = (text: string) => [...text.matchAll(/\{\{(\w+)\}\}/g)].map((m) => m[1]).sort()

function sources(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name)
    if (entry.isDirectory()) return sources(path)
    return /\.tsx?$/.test(entry.name) && !/\.(test|d)\.ts/.test(entry.name) ? [path] : []
  })
}

describe('dictionaries', () => {
  it('hold the same keys', () => {
    expect([...enKeys.keys()].sort()).toEqual([...viKeys.keys()].sort())
  })

  it('fill the same blanks', () => {
    for (const [key, text] of viKeys) expect(blanks(enKeys.get(key) ?? ''), key).toEqual(blanks(text))
  })

  it('are written in NFC', () => {
    for (const [key, text] of viKeys) expect(text, key).toBe(text.normalize('NFC'))
  })

  it('address staff as anh/chị, never bạn', () => {
    for (const [key, text] of viKeys) expect(text, key).not.toMatch(/(^|\s)bạn(\s|[.,!?]|$)/i)
  })

  it('hold every key the source names in full', () => {
    const missing: string[] = []
    for (const path of sources(join(import.meta.dirname, '..'))) {
      const text = readFileSync(path, 'utf8')
      for (const [, key] of text.matchAll(/\bt\(\s*'([A-Za-z]+(?:\.[\w-]+)+)'/g)) {
        if (!viKeys.has(key!)) missing.push(`${path}: ${key}`)
      }
    }
    expect(missing).toEqual([])
  })

  it('hold a branch for every key the source builds', () => {
    const missing: string[] = []
    const prefixes = new Set([...viKeys.keys()].flatMap((key) => key.split('.').map((_, i, all) => all.slice(0, i + 1).join('.'))))
    for (const path of sources(join(import.meta.dirname, '..'))) {
      const text = readFileSync(path, 'utf8')
      for (const [, prefix] of text.matchAll(/\bt\(\s*`([A-Za-z.]+)\.\$\{/g)) {
        if (!prefixes.has(prefix!)) missing.push(`${path}: ${prefix}`)
      }
    }
    expect(missing).toEqual([])
  })
})
