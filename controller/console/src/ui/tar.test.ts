import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { tar } from './tar'

it('is read by tar itself, with text and rights as they were', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tar-'))
  try {
    const long = 'Trúc Bạch\n'.repeat(200)
    const members = [
      { name: 'node.toml', text: long, mode: 0o644 },
      { name: 'node.pem', text: 'secret', mode: 0o600 },
      { name: 'empty', text: '', mode: 0o644 },
    ]
    writeFileSync(join(folder, 'a.tar'), tar(members, 1_700_000_000))
    execFileSync('tar', ['-xf', 'a.tar', '--no-same-owner'], { cwd: folder })
    expect(readFileSync(join(folder, 'node.toml'), 'utf8')).toBe(long)
    expect(readFileSync(join(folder, 'node.pem'), 'utf8')).toBe('secret')
    expect(statSync(join(folder, 'node.pem')).mode & 0o777).toBe(0o600)
    expect(statSync(join(folder, 'empty')).size).toBe(0)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
