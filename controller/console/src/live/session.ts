import type { Session } from '../api/types'
import { parseChange } from './reducer'

/** Follows one session by the controller's event stream; returns the function that stops it. */
export function watchSession(id: string, changed: (session: Session) => void): () => void {
  const source = new EventSource('/api/v1/events')
  source.addEventListener('change', (event) => {
    const change = parseChange((event as MessageEvent<string>).data)
    const row = change?.kind === 'session' && change.rows.find((r) => r.id === id)
    if (row) changed(row as Session)
  })
  return () => source.close()
}
