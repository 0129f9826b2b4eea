import { Anchor, Group, Stack, Text } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useTranslation } from 'react-i18next'
import { Link } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { SAFETY_MS } from '../live/events'
import { Section } from '../ui/page'
import { Ago } from '../ui/time'
import { DiagnosisResult } from './DiagnosisResult'

/** What waits for a second person; nothing, if nothing does. */
export function DiagnosesWaiting() {
  const { t } = useTranslation()
  const query = useQuery({ queryKey: keys.diagnosesWaiting, queryFn: calls.diagnosesWaiting, refetchInterval: SAFETY_MS })
  const rows = (query.data?.items ?? []).filter((row) => row.state === 'asked')
  if (rows.length === 0) return null
  return (
    <Section title={t('diagnosis.waiting')}>
      {rows.map((row) => (
        <Stack key={row.id} gap={4}>
          <Group gap="sm">
            <Anchor component={Link} to={`/endpoints/${row.endpoint.id}`} className="link">
              {row.endpoint.name}
            </Anchor>
            <Text size="sm">
              {row.asked_by}: {row.reason} · <Ago at={row.asked_at} />
            </Text>
          </Group>
          <DiagnosisResult id={row.id} />
        </Stack>
      ))}
    </Section>
  )
}
