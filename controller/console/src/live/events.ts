import type { QueryClient } from '@tanstack/react-query'
import { keys } from '../api/keys'
import { applyToList, collect, type Kind, parseChange, type Pending } from './reducer'

/** Long enough to fold a burst into one redraw, short enough to feel live. */
const FLUSH_MS = 250
/** Sums the server makes (overview, pool counts) are asked for again, but not for every event. */
const SUMS_MS = 1500

const LISTS: Record<Kind, string> = {
  desktop: 'desktops',
  pool: 'pools',
  host: 'hosts',
  image: 'images',
  endpoint: 'endpoints',
  session: 'sessions',
  incident: 'incidents',
  gateway: 'gateways',
  diagnosis: 'diagnoses',
}

export type LinkState = 'connecting' | 'open' | 'lost'

/**
 * Opens the one event stream of this page and keeps the query cache in step with it.
 * Returns the function that closes it.
 */
export function follow(client: QueryClient, report: (state: LinkState) => void): () => void {
  const pending = new Map<Kind, Pending>()
  let flushTimer: ReturnType<typeof setTimeout> | undefined
  let sumsTimer: ReturnType<typeof setTimeout> | undefined
  let source: EventSource | undefined
  let retryTimer: ReturnType<typeof setTimeout> | undefined
  let attempt = 0
  let everOpen = false

  const flush = () => {
    flushTimer = undefined
    for (const [kind, changes] of pending) {
      client.setQueriesData({ queryKey: [LISTS[kind]] }, (old) =>
        applyToList(old as Parameters<typeof applyToList>[0], changes),
      )
      for (const [id, row] of changes.rows) {
        // Its steps and their texts are not in the row.
        if (kind === 'diagnosis') void client.invalidateQueries({ queryKey: [kind, id] })
        client.setQueryData([kind, id], (old: object | undefined) => (old ? { ...old, ...row } : old))
      }
    }
    const kinds = new Set(pending.keys())
    pending.clear()
    sumsTimer ??= setTimeout(() => {
      sumsTimer = undefined
      void client.invalidateQueries({ queryKey: keys.overview })
      if (kinds.has('incident')) void client.invalidateQueries({ queryKey: keys.siteHealth })
      if (kinds.has('desktop')) {
        void client.invalidateQueries({ queryKey: keys.pools })
        void client.invalidateQueries({ queryKey: ['pool'] })
        void client.invalidateQueries({ queryKey: keys.hosts })
      }
    }, SUMS_MS)
  }

  const resync = () => {
    pending.clear()
    for (const list of Object.values(LISTS)) void client.invalidateQueries({ queryKey: [list] })
    for (const kind of Object.keys(LISTS)) void client.invalidateQueries({ queryKey: [kind] })
    void client.invalidateQueries({ queryKey: keys.overview })
  }

  const open = () => {
    report('connecting')
    source = new EventSource('/api/v1/events')
    source.addEventListener('open', () => {
      attempt = 0
      report('open')
      // A stream opened anew cannot replay what happened while it was away.
      if (everOpen) resync()
      everOpen = true
    })
    source.addEventListener('change', (event) => {
      const change = parseChange((event as MessageEvent<string>).data)
      if (!change || !(change.kind in LISTS)) return
      collect(pending, change)
      flushTimer ??= setTimeout(flush, FLUSH_MS)
    })
    source.addEventListener('resync', resync)
    source.addEventListener('error', () => {
      report('lost')
      // While CONNECTING the browser retries by itself; CLOSED (an HTTP error) is left to us.
      if (source?.readyState !== EventSource.CLOSED) return
      attempt += 1
      const wait = Math.min(30_000, 1000 * 2 ** attempt) * (0.5 + Math.random() / 2)
      retryTimer = setTimeout(open, wait)
    })
  }
  open()

  return () => {
    source?.close()
    clearTimeout(flushTimer)
    clearTimeout(sumsTimer)
    clearTimeout(retryTimer)
  }
}
