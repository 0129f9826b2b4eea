import { useEffect, useState } from 'react'
import * as calls from '../api/calls'
import type { Session } from '../api/types'
import { watchSession } from '../live/session'

const LOOK_MS = 20_000

/** The session as the controller sees it while its desktop is on screen. */
export function useLiveSession(id: string | undefined): Session | undefined {
  const [session, setSession] = useState<Session>()
  useEffect(() => {
    setSession(undefined)
    if (!id) return
    let alive = true
    // A limit by the clock comes near without an event.
    const look = () =>
      calls
        .session(id)
        .then((row) => alive && setSession(row))
        .catch(() => undefined)
    void look()
    const timer = setInterval(() => void look(), LOOK_MS)
    const stop = watchSession(id, (row) => alive && setSession(row))
    return () => {
      alive = false
      clearInterval(timer)
      stop()
    }
  }, [id])
  return session
}
