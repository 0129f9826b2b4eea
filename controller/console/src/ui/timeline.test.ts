import { expect, it } from 'vitest'
import { lines, type Point } from './timeline'

const at = (minute: number, gauges: Point['gauges'], missing?: number): Point => ({
  at: new Date(minute * 60_000).toISOString(),
  gauges,
  missing: missing ?? null,
})

it('holds a value until it is told anew', () => {
  const points = [at(1, { x: 10 }), at(2, { y: 1 }), at(3, { x: 20 })]
  expect(lines(points, 'x', 0, 4 * 60_000, 20)).toEqual(['180.0,60.0 540.0,60.0 540.0,0.0'])
})

it('draws no line over silence, over what was dropped, and over what could not be read', () => {
  const points = [at(1, { x: 1 }), at(40, { x: 1 }), at(41, {}, 7), at(42, { x: 2 }), at(43, { x: null }), at(44, { x: 3 })]
  expect(lines(points, 'x', 0, 60 * 60_000, 10)).toHaveLength(4)
})
