const LOOK_EVERY_MS = 5000
const QUIET_MS = 10_000
const ANSWER_WITHIN_MS = 5000

/**
 * Notices a line that died without a word: after a quiet spell it asks the controller for its
 * health, and two missing answers in a row mean the line is gone. Returns the function that stops it.
 */
export function watchLine(socket: WebSocket, dead: () => void): () => void {
  let lastWord = performance.now()
  let misses = 0
  let asking = false
  const heard = () => {
    lastWord = performance.now()
    misses = 0
  }
  const look = async () => {
    if (asking || performance.now() - lastWord < QUIET_MS) return
    asking = true
    try {
      await fetch('/healthz', { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_WITHIN_MS) })
      heard()
    } catch {
      misses += 1
      if (misses >= 2) dead()
    } finally {
      asking = false
    }
  }
  socket.addEventListener('message', heard)
  const timer = setInterval(() => void look(), LOOK_EVERY_MS)
  // The browser knows at once when its own network goes.
  window.addEventListener('offline', dead)
  return () => {
    clearInterval(timer)
    socket.removeEventListener('message', heard)
    window.removeEventListener('offline', dead)
  }
}
