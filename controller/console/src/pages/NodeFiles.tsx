import { Alert, Button, Code, Group, List, Stack, Text } from '@mantine/core'
import { useTranslation } from 'react-i18next'
import type { NodeFiles as Files } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Icon } from '../ui/icons'
import { tar } from '../ui/tar'

/** What a node is started with, to be saved now, and what to do with it on the host. */
export function NodeFiles({ name, files }: { name: string; files: Files }) {
  const { t } = useTranslation()
  const format = useFormat()
  const archive = `node-${name}.tar`
  const save = () => {
    const members = [
      { name: 'node.toml', text: files.settings, mode: 0o644 },
      { name: 'ca.pem', text: files.authority, mode: 0o644 },
      { name: 'node.pem', text: files.certificate, mode: 0o600 },
    ]
    const url = URL.createObjectURL(new Blob([tar(members, Math.floor(Date.now() / 1000))], { type: 'application/x-tar' }))
    const link = document.createElement('a')
    link.href = url
    link.download = archive
    link.click()
    // The click has begun the download; what it needs of the address it has.
    setTimeout(() => URL.revokeObjectURL(url), 10_000)
  }
  return (
    <Stack>
      <Alert color="yellow" variant="outline" styles={{ message: { color: 'var(--mantine-color-text)' } }}>
        {t('node.once')}
      </Alert>
      <Group>
        <Button leftSection={<Icon name="copy" />} onClick={save} data-testid="node-files">
          {t('node.save', { file: archive })}
        </Button>
      </Group>
      <List type="ordered" size="sm" spacing="xs">
        <List.Item>{t('node.stepInstall')}</List.Item>
        <List.Item>
          {t('node.stepCopy')}
          <Code block>{`tar -C /etc/tram -xf ${archive} && rm ${archive}`}</Code>
        </List.Item>
        <List.Item>
          {t('node.stepStart')}
          <Code block>systemctl enable --now tram-node</Code>
        </List.Item>
        <List.Item>{t('node.stepPort')}</List.Item>
      </List>
      <Text size="sm" className="quiet">
        {t('node.until', { at: format.dateTime(files.not_after) })}
      </Text>
    </Stack>
  )
}
