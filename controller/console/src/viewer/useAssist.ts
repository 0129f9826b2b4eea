import type RFB from '@novnc/novnc'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { type RefObject, useEffect, useRef, useState } from 'react'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Assist, Ticket } from '../api/types'
import { watchSession } from '../live/session'
import { gatewayUrl } from './useViewer'

const LOOK_MS = 2000

/** The session's latest assist, as the controller has it. */
export function useLatestAssist(sessionId: string) {
  const client = useQueryClient()
  const query = useQuery({
    queryKey: keys.assists(sessionId),
    queryFn: () => calls.assists(sessionId),
    refetchInterval: LOOK_MS,
  })
  useEffect(
    () => watchSession(sessionId, () => void client.invalidateQueries({ queryKey: keys.assists(sessionId) })),
    [client, sessionId],
  )
  return query
}

/**
 * The second display of an allowed assist, in `screen`. It is opened once: when it closes, the assist is over. What may
 * not be sent is dropped by the gateway; `viewOnly` only keeps this page from trying.
 */
export function useAssistScreen(screen: RefObject<HTMLDivElement | null>, assist: Assist | undefined, sessionId: string) {
  const [error, setError] = useState<unknown>()
  const [open, setOpen] = useState(false)
  const rfb = useRef<RFB | null>(null)
  const id = assist && assist.state !== 'asked' && assist.state !== 'ended' ? assist.id : undefined
  const viewOnly = assist?.control !== 'granted'

  useEffect(() => {
    if (!id || !screen.current) return
    const target = screen.current
    let alive = true
    let socket: WebSocket | undefined
    setError(undefined)
    const show = async () => {
      const ticket: Ticket = await calls.assistTicket(sessionId)
      const { default: Rfb } = await import('@novnc/novnc')
      if (!alive) return
      socket = new WebSocket(gatewayUrl(ticket.url), ['binary', ticket.ticket])
      const client = new Rfb(target, socket, { shared: true })
      client.viewOnly = true
      client.scaleViewport = true
      client.background = '#101415'
      client.addEventListener('connect', () => alive && setOpen(true))
      client.addEventListener('disconnect', () => alive && setOpen(false))
      rfb.current = client
    }
    show().catch((failure: unknown) => alive && setError(failure))
    return () => {
      alive = false
      setOpen(false)
      rfb.current?.disconnect()
      rfb.current = null
      socket?.close()
      target.replaceChildren()
    }
  }, [id, screen, sessionId])

  useEffect(() => {
    if (rfb.current && open) rfb.current.viewOnly = viewOnly
  }, [viewOnly, open])

  return { open, error }
}
