import { describe, expect, it } from 'vitest'
import { fold, matches } from './text'

describe('text filter', () => {
  it('ignores diacritics, case, đ and the normal form', () => {
    expect(fold('Đường Đê La Thành')).toBe('duong de la thanh')
    expect(fold('Ứng Hòa'.normalize('NFD'))).toBe(fold('Ứng Hòa'.normalize('NFC')))
  })

  it('wants every word, in any order and any text', () => {
    expect(matches('hoa ung', 'Xã Ứng Hòa')).toBe(true)
    expect(matches('minh khai hoai duc', 'Xã Minh Khai', 'Huyện Hoài Đức')).toBe(true)
    expect(matches('minh khai tu liem', 'Xã Minh Khai', 'Huyện Hoài Đức')).toBe(false)
    expect(matches('  ', null)).toBe(true)
  })
})
