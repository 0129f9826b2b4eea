import { Group, SimpleGrid, Stack, Text } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useTranslation } from 'react-i18next'
import { Link } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { useFormat } from '../i18n/useFormat'
import { Answer } from '../ui/feedback'
import { Page } from '../ui/page'
import { StatePill } from '../ui/state'

export function OverviewPage() {
  const { t } = useTranslation()
  const query = useQuery({ queryKey: keys.overview, queryFn: calls.overview, refetchInterval: 60_000 })
  return (
    <Page title={t('nav.overview')} lead={t('overview.lead')}>
      <Answer query={query}>
        {(sum) => (
          <>
            <SimpleGrid cols={{ base: 1, xs: 2, lg: 4 }}>
              <Figure to="/hosts" label={t('nav.hosts')} value={sum.hosts.up} of={sum.hosts.total} note={t('overview.up')} />
              <Figure
                to="/desktops"
                label={t('nav.desktops')}
                value={sum.desktops.by_state.running ?? 0}
                of={sum.desktops.total}
                note={t('overview.running')}
              />
              <Figure
                to="/endpoints"
                label={t('nav.endpoints')}
                value={sum.endpoints.online}
                of={sum.endpoints.total}
                note={sum.endpoints.silent > 0 ? t('overview.silent', { count: sum.endpoints.silent }) : t('overview.online')}
              />
              <Figure
                to="/sessions"
                label={t('nav.sessions')}
                value={sum.sessions.active}
                note={t('overview.disconnected', { count: sum.sessions.disconnected })}
              />
            </SimpleGrid>
            <Stack className="card" p="lg" gap="sm">
              <Text component="h2" fw={650} m={0}>
                {t('overview.byState')}
              </Text>
              <Group gap="lg">
                {Object.entries(sum.desktops.by_state)
                  .filter(([, count]) => count > 0)
                  .map(([state, count]) => (
                    <Group key={state} gap={8}>
                      <StatePill group="desktop.state" state={state} />
                      <Count value={count} />
                    </Group>
                  ))}
                {sum.desktops.total === 0 && (
                  <Text size="sm" className="quiet">
                    {t('overview.noDesktops')}{' '}
                    <Link className="link" to="/pools">
                      {t('pool.create')}
                    </Link>
                  </Text>
                )}
              </Group>
            </Stack>
          </>
        )}
      </Answer>
    </Page>
  )
}

function Count({ value }: { value: number }) {
  const format = useFormat()
  return (
    <Text fw={650} component="span">
      {format.number(value)}
    </Text>
  )
}

function Figure({ to, label, value, of, note }: { to: string; label: string; value: number; of?: number; note: string }) {
  const format = useFormat()
  return (
    <Stack className="card" p="lg" gap={4}>
      <Link to={to} className="link">
        {label}
      </Link>
      <div className="figure">
        {format.number(value)}
        {of !== undefined && <span className="quiet" style={{ fontSize: 18 }}> / {format.number(of)}</span>}
      </div>
      <Text size="sm" className="quiet">
        {note}
      </Text>
    </Stack>
  )
}
