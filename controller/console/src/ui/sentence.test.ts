import { expect, it } from 'vitest'
import { sentence } from './sentence'

it('says what is wrong and what to do, in both languages', () => {
  const vi = sentence('printer_paper', { printer: 'Một cửa' }, 'vi')
  expect(vi.what).toBe('Một cửa hết giấy')
  expect(vi.next).toContain('giấy')
  expect(sentence('disk_low', { free_percent: '8' }, 'en').what).toBe('only 8 % of ? is free')
})

it('shows a code that is newer than this console as it is', () => {
  expect(sentence('hologram_dim', {}, 'vi')).toEqual({ what: 'hologram_dim', next: '' })
})
