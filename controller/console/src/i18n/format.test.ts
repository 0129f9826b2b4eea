import { describe, expect, it } from 'vitest'
import * as format from './format'

describe('formatters', () => {
  it('show the time of Hanoi, day first, on a 24-hour clock', () => {
    expect(format.dateTime('2026-11-23T17:05:09Z')).toBe('24/11/2026 00:05')
    expect(format.dateTime('2026-11-23T17:05:09Z', true)).toBe('24/11/2026 00:05:09')
    expect(format.clock('2026-11-23T02:45:00Z')).toBe('09:45')
    expect(format.date('2016-12-31T17:00:00Z')).toBe('01/01/2017')
  })

  it('show a dash for what is not known', () => {
    expect(format.dateTime(null)).toBe('—')
    expect(format.dateTime('not a date')).toBe('—')
    expect(format.number(undefined, 'vi')).toBe('—')
    expect(format.mebibytes(null, 'vi')).toBe('—')
  })

  it('write a decimal comma in Vietnamese and a point in English', () => {
    expect(format.number(1234.5, 'vi', 1)).toBe('1.234,5')
    expect(format.number(1234.5, 'en', 1)).toBe('1,234.5')
    expect(format.mebibytes(1536, 'vi')).toBe('1,5 GiB')
    expect(format.mebibytes(768, 'vi')).toBe('768 MiB')
    expect(format.bytes(695 * 1024 * 1024, 'en')).toBe('695 MiB')
  })

  it('say how long ago in the largest whole unit', () => {
    const now = new Date('2026-11-23T12:00:00Z')
    expect(format.relative('2026-11-23T11:59:21Z', now, 'vi')).toBe('39 giây trước')
    expect(format.relative('2026-11-23T12:00:01Z', now, 'vi')).toBe('vừa xong')
    expect(format.relative('2026-11-23T11:56:10Z', now, 'vi')).toBe('3 phút trước')
    expect(format.relative('2026-11-21T12:00:00Z', now, 'en')).toBe('2 days ago')
  })

  it('give durations in the two largest units', () => {
    expect(format.duration(42, 'vi')).toBe('42 giây')
    expect(format.duration(3 * 86_400 + 5 * 3600 + 7 * 60, 'vi')).toBe('3 ngày 5 giờ')
  })
})
