import { describe, expect, it } from 'vitest'
import { typed } from './number'

describe('a number that is typed', () => {
  it('is empty only if nothing stands there', () => {
    expect(typed('')).toBeUndefined()
    expect(typed(' ')).toBeUndefined()
    expect(typed(20_000)).toBe(20_000)
    expect(typed('99 999 999 999 999')).toBe(99_999_999_999_999)
    expect(typed('-')).toBeNaN()
  })
})
