import type RFB from '@novnc/novnc'
import { type RefObject, useCallback, useEffect, useReducer, useRef, useState } from 'react'
import * as calls from '../api/calls'
import { asProblem } from '../api/problem'
import { watchSession } from '../live/session'
import type { OpenPlace } from '../api/types'
import { next, type View } from './machine'
import { watchLine } from './watchdog'

const POLL_MS = 1500
/** Asking again keeps the place in line; changes come by event meanwhile. */
const KEEP_PLACE_MS = 10_000

/** The place a session is open at, if that is why the call was refused. */
function openElsewhere(error: unknown): OpenPlace | undefined {
  const problem = asProblem(error)
  return problem.code === 'S-106' ? (problem.extra.elsewhere as OpenPlace | undefined) : undefined
}

export function gatewayUrl(url: string): string {
  const absolute = new URL(url, window.location.href)
  absolute.protocol = absolute.protocol.replace('http', 'ws')
  return absolute.href
}

/** Drives the view machine: each phase's one effect, and the live RFB connection. */
export function useViewer(screen: RefObject<HTMLDivElement | null>) {
  const [view, dispatch] = useReducer(next, { phase: 'connecting' } as View)
  const rfb = useRef<RFB | null>(null)
  const [quiet, setQuiet] = useState(false)
  const phase = view.phase
  const takeOver = view.phase === 'connecting' && view.takeOver === true
  const sessionId = 'session' in view ? view.session?.id : undefined

  // connecting: ask for a desktop; the same one comes back while the session lives.
  useEffect(() => {
    if (phase !== 'connecting') return
    let alive = true
    calls
      .connect(takeOver)
      .then(({ session, ticket }) => alive && dispatch({ type: 'session', session, ticket }))
      .catch((error: unknown) => {
        if (!alive) return
        const place = openElsewhere(error)
        dispatch(place ? { type: 'elsewhere', place } : { type: 'failed', error })
      })
    return () => {
      alive = false
    }
  }, [phase, takeOver])

  // waiting: follow the start, or the line; a missed poll is nothing to report.
  const inLine = view.phase === 'waiting' && view.session.state === 'waiting'
  useEffect(() => {
    if (phase !== 'waiting' || !sessionId) return
    let alive = true
    const ask = () =>
      (inLine ? calls.connect().then(({ session }) => session) : calls.session(sessionId))
        .then((session) => alive && dispatch({ type: 'session', session }))
        .catch((error: unknown) => {
          if (alive && asProblem(error).status === 404) dispatch({ type: 'failed', error })
        })
    const timer = setInterval(() => void ask(), inLine ? KEEP_PLACE_MS : POLL_MS)
    const stop = watchSession(sessionId, (session) => alive && dispatch({ type: 'session', session }))
    return () => {
      alive = false
      clearInterval(timer)
      stop()
    }
  }, [phase, sessionId, inLine])

  // ticket: every connection needs a fresh one, they work once.
  useEffect(() => {
    if (phase !== 'ticket' || !sessionId) return
    let alive = true
    const run = async () => {
      try {
        const ticket = await calls.ticket(sessionId)
        if (alive) dispatch({ type: 'ticket', ticket })
      } catch (error) {
        const problem = asProblem(error)
        if (!alive || problem.status === 401) return
        if (problem.status === 0 || problem.status >= 500) {
          const cause = problem.status === 0 ? 'line' : 'gateway'
          dispatch({ type: 'unreachable', now: Date.now(), random: Math.random(), cause })
          return
        }
        const place = openElsewhere(error)
        if (place) return dispatch({ type: 'elsewhere', place })
        // Not ready, or ended meanwhile: the session itself says which.
        const session = await calls.session(sessionId).catch(() => undefined)
        if (!alive) return
        if (problem.status === 409 && session) dispatch({ type: 'notReady', session })
        else if (session?.state === 'ended') dispatch({ type: 'notReady', session })
        else dispatch({ type: 'failed', error })
      }
    }
    void run()
    return () => {
      alive = false
    }
  }, [phase, sessionId])

  // dialling and open: one socket and one RFB client, as long as its ticket is the current one.
  const ticket = phase === 'dialling' || phase === 'open' ? view.ticket : undefined
  useEffect(() => {
    if (!ticket || !screen.current) return
    const target = screen.current
    let alive = true
    let socket: WebSocket | undefined
    let stopWatch: (() => void) | undefined
    const dropped = (code: number, text?: string) => {
      if (!alive) return
      alive = false
      dispatch({ type: 'dropped', code, text, now: Date.now(), random: Math.random() })
    }
    const run = async () => {
      const { default: Rfb } = await import('@novnc/novnc')
      if (!alive) return
      socket = new WebSocket(gatewayUrl(ticket.url), ['binary', ticket.ticket])
      // noVNC's own event hides the close code, so the socket is ours and handed over.
      socket.addEventListener('close', (event) => dropped(event.code, event.reason))
      stopWatch = watchLine(socket, () => dropped(1006), setQuiet)
      const client = new Rfb(target, socket, { shared: true })
      client.scaleViewport = true
      client.showDotCursor = true
      client.background = '#101415'
      client.addEventListener('connect', () => {
        if (!alive) return
        dispatch({ type: 'opened' })
        client.focus()
      })
      client.addEventListener('disconnect', () => dropped(1006))
      rfb.current = client
    }
    run().catch(() => dropped(1006))
    return () => {
      alive = false
      stopWatch?.()
      rfb.current?.disconnect()
      rfb.current = null
      socket?.close()
      target.replaceChildren()
    }
  }, [ticket, screen])

  // lost: wait out the backoff, or less when the network reports back.
  const retryAt = phase === 'lost' ? view.retryAt : undefined
  const retryNow = useCallback(() => dispatch({ type: 'due' }), [])
  useEffect(() => {
    if (retryAt === undefined) return
    const timer = setTimeout(retryNow, Math.max(0, retryAt - Date.now()))
    window.addEventListener('online', retryNow)
    return () => {
      clearTimeout(timer)
      window.removeEventListener('online', retryNow)
    }
  }, [retryAt, retryNow])

  const restart = useCallback((takeOver = false) => dispatch({ type: 'restart', takeOver }), [])
  return { view, rfb, quiet, retryNow, restart }
}
