import { describe, expect, it } from 'vitest'
import type { Session, Ticket } from '../api/types'
import { backoff, type Event, next, type View } from './machine'

const session = (state: Session['state']) =>
  ({ id: 's1', state, desktop: { id: 'd1', name: 'vdi-1', state: 'running' }, resumes: 0 }) as Session
const ticket = (n: number): Ticket => ({ ticket: `vdt1_${n}`, url: 'wss://x/gateway/v1/vnc', expires_in: 30 })
const run = (...events: Event[]) => events.reduce(next, { phase: 'connecting' } as View)
const drop = (code: number, now = 1000): Event => ({ type: 'dropped', code, now, random: 1 })

describe('viewer machine', () => {
  it('waits for a cold desktop and takes a ticket only when it is ready', () => {
    let view = run({ type: 'session', session: session('starting') })
    expect(view.phase).toBe('waiting')
    view = next(view, { type: 'session', session: session('ready') })
    expect(view.phase).toBe('ticket')
    view = next(view, { type: 'ticket', ticket: ticket(1) })
    expect(view.phase).toBe('dialling')
    expect(next(view, { type: 'opened' }).phase).toBe('open')
  })

  it('stands in line until its turn, and then goes on as ever', () => {
    let view = run({ type: 'session', session: session('waiting') })
    expect(view).toMatchObject({ phase: 'waiting', session: { state: 'waiting' } })
    view = next(view, { type: 'session', session: session('starting') })
    expect(next(view, { type: 'session', session: session('ready') }).phase).toBe('ticket')
  })

  it('takes a desktop from another place only when told to', () => {
    const place = { kind: 'endpoint', name: 'may-01', since: '2026-01-01T00:00:00Z' } as const
    const asked = run({ type: 'elsewhere', place })
    expect(asked).toEqual({ phase: 'elsewhere', place })
    expect(next(asked, { type: 'due' })).toBe(asked)
    expect(next(asked, { type: 'restart' })).toEqual({ phase: 'connecting' })
    expect(next(asked, { type: 'restart', takeOver: true })).toEqual({ phase: 'connecting', takeOver: true })
    // Coming back after a cut finds that somebody else took it meanwhile.
    const asking = next(next(run({ type: 'session', session: session('ready'), ticket: ticket(1) }), drop(1006)), { type: 'due' })
    expect(next(asking, { type: 'elsewhere', place }).phase).toBe('elsewhere')
  })

  it('dials at once when connect brought a ticket', () => {
    expect(run({ type: 'session', session: session('ready'), ticket: ticket(1) }).phase).toBe('dialling')
  })

  it('never dials twice with one ticket: a drop leads through a fresh one', () => {
    const open = run({ type: 'session', session: session('ready'), ticket: ticket(1) }, { type: 'opened' })
    const lost = next(open, drop(1006))
    expect(lost).toMatchObject({ phase: 'lost', attempt: 1, retryAt: 1500 })
    const asking = next(lost, { type: 'due' })
    expect(asking).toEqual({ phase: 'ticket', session: session('ready'), attempt: 1 })
    const again = next(asking, { type: 'ticket', ticket: ticket(2) })
    expect(again).toMatchObject({ phase: 'dialling', ticket: ticket(2), attempt: 1 })
  })

  it('waits longer after each failure and starts anew after a success', () => {
    let view = run({ type: 'session', session: session('ready'), ticket: ticket(1) })
    const waits: number[] = []
    for (let i = 0; i < 8; i += 1) {
      view = next(view, drop(1006, 0))
      if (view.phase !== 'lost') throw new Error(view.phase)
      waits.push(view.retryAt)
      view = next(next(view, { type: 'due' }), { type: 'ticket', ticket: ticket(i) })
    }
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000])
    view = next(next(view, { type: 'opened' }), drop(1006, 0))
    expect(view).toMatchObject({ phase: 'lost', retryAt: 500 })
  })

  it('spreads waits between half and the whole', () => {
    expect(backoff(3, 0)).toBe(2000)
    expect(backoff(3, 1)).toBe(4000)
    expect(backoff(30, 0.5)).toBe(11_250)
  })

  it('keeps trying while the controller itself is away', () => {
    const asking = run({ type: 'session', session: session('ready') })
    const lost = next(asking, { type: 'unreachable', now: 0, random: 0 })
    expect(lost).toMatchObject({ phase: 'lost', attempt: 1, retryAt: 250 })
  })

  it.each([
    [4000, 'ended'],
    [4001, 'gone'],
    [4002, 'host'],
    [4003, 'limit'],
    [4004, 'taken'],
  ])('does not fight close code %i', (code, reason) => {
    const open = run({ type: 'session', session: session('ready'), ticket: ticket(1) }, { type: 'opened' })
    expect(next(open, drop(code))).toMatchObject({ phase: 'closed', reason, code: `V-${code}` })
    expect(next(next(open, drop(code)), { type: 'due' }).phase).toBe('closed')
  })

  it('shows the code the gateway gave', () => {
    const open = run({ type: 'session', session: session('ready'), ticket: ticket(1) }, { type: 'opened' })
    expect(next(open, { type: 'dropped', code: 4001, text: 'G-401', now: 0, random: 0 })).toMatchObject({ code: 'G-401' })
  })

  it('returns to waiting when the desktop was stopped under a lost line, and closes when the session ended', () => {
    const asking = run({ type: 'session', session: session('ready') })
    expect(next(asking, { type: 'notReady', session: session('starting') }).phase).toBe('waiting')
    expect(next(asking, { type: 'notReady', session: session('ended') })).toMatchObject({ phase: 'closed', reason: 'ended' })
  })

  it('ignores late answers of a phase that is over', () => {
    const closed = run({ type: 'session', session: session('ended') })
    expect(next(closed, { type: 'session', session: session('ready') })).toBe(closed)
    const open = run({ type: 'session', session: session('ready'), ticket: ticket(1) }, { type: 'opened' })
    expect(next(open, { type: 'ticket', ticket: ticket(9) })).toBe(open)
  })
})
