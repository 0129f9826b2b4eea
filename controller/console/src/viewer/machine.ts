/**
 * The life of one view of a desktop, as a pure function: what is on screen, and what is due when.
 * The component does the effects (connect, ticket, RFB) and feeds their outcomes back in.
 *
 *   connecting ─session─> waiting ─ready─> ticket ─got─> dialling ─rfb─> open
 *     ^  │                   │               ^              │             │
 *     │  └──── failed <──────┴── refused ────┤<──── lost <──┴─────────────┘
 *     │                                      └ due (jittered, growing)
 *     └─restart(takeOver)── elsewhere <── the desktop is open at another place
 *
 * In `waiting` the session itself says what for: in line (`waiting`) or its desktop on the way (`starting`).
 */
import type { OpenPlace, Session, Ticket } from '../api/types'

export type View =
  | { phase: 'connecting'; takeOver?: boolean }
  | { phase: 'elsewhere'; place: OpenPlace }
  | { phase: 'waiting'; session: Session }
  | { phase: 'ticket'; session: Session; attempt: number }
  | { phase: 'dialling'; session: Session; attempt: number; ticket: Ticket }
  | { phase: 'open'; session: Session; attempt: number; ticket: Ticket }
  | { phase: 'lost'; session: Session; attempt: number; retryAt: number; cause: LostCause }
  | { phase: 'closed'; reason: CloseReason; code: string; session?: Session }
  | { phase: 'failed'; error: unknown; session?: Session }

/** What is away while the desktop goes on: the line, or the data centre's gateway. */
export type LostCause = 'line' | 'gateway'

export type CloseReason = 'ended' | 'gone' | 'host' | 'limit' | 'taken'

export type Event =
  | { type: 'session'; session: Session; ticket?: Ticket | null }
  | { type: 'ticket'; ticket: Ticket }
  | { type: 'notReady'; session: Session }
  | { type: 'opened' }
  | { type: 'dropped'; code: number; text?: string; now: number; random: number }
  | { type: 'unreachable'; now: number; random: number; cause?: LostCause }
  | { type: 'due' }
  | { type: 'failed'; error: unknown }
  | { type: 'elsewhere'; place: OpenPlace }
  | { type: 'restart'; takeOver?: boolean }

const CLOSE_CODES: Record<number, CloseReason> = {
  4000: 'ended',
  4001: 'gone',
  4002: 'host',
  4003: 'limit',
  4004: 'taken',
}

/** The gateway itself says that it goes or is in trouble. */
const GATEWAY_CODES = new Set([1001, 1011, 1012, 1013])

const FIRST_MS = 500
const LONGEST_MS = 15_000

/** Doubling wait with full jitter above half, so a district's viewers do not return in step. */
export function backoff(attempt: number, random: number): number {
  const ceiling = Math.min(LONGEST_MS, FIRST_MS * 2 ** attempt)
  return Math.round(ceiling * (0.5 + random / 2))
}

/** Codes of the desktop itself going away: the gateway will not take this session further. */
export function closeReason(code: number): CloseReason | undefined {
  return CLOSE_CODES[code]
}

function lose(
  view: View & { session: Session; attempt: number },
  event: { now: number; random: number; code?: number; cause?: LostCause },
): View {
  return {
    phase: 'lost',
    session: view.session,
    attempt: view.attempt + 1,
    retryAt: event.now + backoff(view.attempt, event.random),
    cause: event.cause ?? (event.code !== undefined && GATEWAY_CODES.has(event.code) ? 'gateway' : 'line'),
  }
}

export function next(view: View, event: Event): View {
  if (event.type === 'restart') return event.takeOver ? { phase: 'connecting', takeOver: true } : { phase: 'connecting' }
  if (event.type === 'elsewhere') return { phase: 'elsewhere', place: event.place }
  if (event.type === 'failed') {
    return { phase: 'failed', error: event.error, ...('session' in view ? { session: view.session } : {}) }
  }
  switch (view.phase) {
    case 'connecting':
    case 'waiting':
      if (event.type !== 'session') return view
      if (event.session.state === 'ended') return { phase: 'closed', reason: 'ended', code: 'V-4000', session: event.session }
      if (event.session.state === 'starting' || event.session.state === 'waiting') return { phase: 'waiting', session: event.session }
      return event.ticket
        ? { phase: 'dialling', session: event.session, attempt: 0, ticket: event.ticket }
        : { phase: 'ticket', session: event.session, attempt: 0 }
    case 'ticket':
      if (event.type === 'ticket') return { ...view, phase: 'dialling', ticket: event.ticket }
      if (event.type === 'notReady') {
        return event.session.state === 'ended'
          ? { phase: 'closed', reason: 'ended', code: 'V-4000', session: event.session }
          : { phase: 'waiting', session: event.session }
      }
      if (event.type === 'unreachable') return lose(view, event)
      return view
    case 'dialling':
    case 'open':
      if (event.type === 'opened') return { ...view, phase: 'open', attempt: 0 }
      if (event.type === 'dropped') {
        const reason = closeReason(event.code)
        if (!reason) return lose(view, event)
        return { phase: 'closed', reason, code: /^[A-Z]-\d+$/.test(event.text ?? '') ? (event.text ?? '') : `V-${event.code}`, session: view.session }
      }
      return view
    case 'lost':
      return event.type === 'due' ? { phase: 'ticket', session: view.session, attempt: view.attempt } : view
    case 'elsewhere':
    case 'closed':
    case 'failed':
      return view
  }
}
