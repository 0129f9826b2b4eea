import { Stack, Text, Title } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useEffect } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { Ago } from '../ui/time'

const SHOWN = 5

/** Who watched the officer's screen in this session, newest first. `live`: the assist shown elsewhere. */
export function AssistHistory({ sessionId, live }: { sessionId: string; live: string | undefined }) {
  const { t } = useTranslation()
  const { data, refetch } = useQuery({ queryKey: keys.assists(sessionId), queryFn: () => calls.assists(sessionId) })
  useEffect(() => void refetch(), [live, refetch])
  const past = data?.items.filter((one) => one.state === 'ended').slice(0, SHOWN) ?? []
  if (past.length === 0) return null
  return (
    <Stack gap={4}>
      <Title order={3} fz={15}>
        {t('assist.history')}
      </Title>
      {past.map((one) => (
        <Text key={one.id} size="sm">
          {one.supporter.display_name}, <Ago at={one.began_at ?? one.asked_at} />. {t(`assist.end.${one.end_reason ?? 'left'}`)}
        </Text>
      ))}
    </Stack>
  )
}
