import { Stack, Text } from '@mantine/core'
import { useTranslation } from 'react-i18next'
import type { TokenCreated } from '../api/types'
import { useFormat } from '../i18n/useFormat'

/** What a commune gets on paper: a code for a scanner or a camera, and the same for a keyboard. */
export function TokenSheet({ token }: { token: TokenCreated }) {
  const { t } = useTranslation()
  const format = useFormat()
  const [prefix, ...groups] = token.token.toUpperCase().split('-')
  return (
    <Stack className="sheet" gap="sm" align="center">
      <Text fw={650}>{`${token.site.name}${token.site.district ? `, ${token.site.district}` : ''}`}</Text>
      <Qr rows={token.qr} label={t('token.qr')} />
      <Text size="sm" className="quiet">
        {t('token.sheetHint')}
      </Text>
      <Text size="sm">
        {t('token.address')}: <b>{token.address}</b>
      </Text>
      <div data-testid="token-groups">
        <Text size="xs" className="quiet">
          {t('token.secret', { prefix })}
        </Text>
        <Text ff="monospace" fz="lg" fw={650}>
          {groups.slice(0, 4).join('  ')}
        </Text>
        <Text size="xs" className="quiet">
          {t('token.authority')}
        </Text>
        <Text ff="monospace" fz="lg" fw={650}>
          {groups.slice(4).join('  ')}
        </Text>
      </div>
      <Text size="sm" className="quiet">
        {t('token.until', { at: format.dateTime(token.expires_at) })}
      </Text>
    </Stack>
  )
}

function Qr({ rows, label }: { rows: string[]; label: string }) {
  const side = rows.length + 8
  const dark = rows.flatMap((row, y) => [...row].map((c, x) => (c === '#' ? `M${x + 4} ${y + 4}h1v1h-1z` : ''))).join('')
  return (
    <svg role="img" aria-label={label} viewBox={`0 0 ${side} ${side}`} width="220" height="220" shapeRendering="crispEdges">
      <path fill="#fff" d={`M0 0h${side}v${side}h-${side}z`} />
      <path fill="#000" d={dark} />
    </svg>
  )
}
