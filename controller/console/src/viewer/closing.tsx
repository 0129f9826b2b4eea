import { Button, Group, Text } from '@mantine/core'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import type { Session } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { useNow } from '../ui/time'

const LAST_MINUTE_S = 60

/** Warns over the desktop that a limit is near; the officer may say that they are still there. */
export function ClosingNote({ session }: { session: Session | undefined }) {
  const { t } = useTranslation()
  const format = useFormat()
  const now = useNow(1000)
  const closing = session?.closing
  if (!session || !closing) return null
  const left = Math.max(0, Math.ceil((Date.parse(closing.at) - now.getTime()) / 1000))
  const urgent = left <= LAST_MINUTE_S
  return (
    <div className="viewer-note" role={urgent ? 'alert' : 'status'} data-urgent={urgent || undefined}>
      <Group gap="sm" justify="center">
        <Text size="sm" fw={urgent ? 700 : 400}>
          {t(`viewer.closing.${closing.why}`, { left: format.duration(left) })}
        </Text>
        {closing.why === 'idle' && (
          <Button size="compact-sm" onClick={() => void calls.present(session.id).catch(() => undefined)}>
            {t('viewer.closing.present')}
          </Button>
        )}
      </Group>
    </div>
  )
}
