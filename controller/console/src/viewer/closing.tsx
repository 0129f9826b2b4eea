import { Button, Group, Text } from '@mantine/core'
import { useEffect, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import type { Session } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { watchSession } from '../live/session'
import { useNow } from '../ui/time'

const LOOK_MS = 20_000
const LAST_MINUTE_S = 60

/** The session as the controller sees it while its desktop is on screen. */
function useLiveSession(id: string | undefined): Session | undefined {
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

/** Warns over the desktop that a limit is near; the officer may say that they are still there. */
export function ClosingNote({ sessionId }: { sessionId: string | undefined }) {
  const { t } = useTranslation()
  const format = useFormat()
  const session = useLiveSession(sessionId)
  const now = useNow(1000)
  const closing = session?.closing
  if (!sessionId || !closing) return null
  const left = Math.max(0, Math.ceil((Date.parse(closing.at) - now.getTime()) / 1000))
  const urgent = left <= LAST_MINUTE_S
  return (
    <div className="viewer-note" role={urgent ? 'alert' : 'status'} data-urgent={urgent || undefined}>
      <Group gap="sm" justify="center">
        <Text size="sm" fw={urgent ? 700 : 400}>
          {t(`viewer.closing.${closing.why}`, { left: format.duration(left) })}
        </Text>
        {closing.why === 'idle' && (
          <Button size="compact-sm" onClick={() => void calls.present(sessionId).catch(() => undefined)}>
            {t('viewer.closing.present')}
          </Button>
        )}
      </Group>
    </div>
  )
}
