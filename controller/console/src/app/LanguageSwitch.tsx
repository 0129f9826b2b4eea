import { SegmentedControl } from '@mantine/core'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { chooseLanguage, type Language, language } from '../i18n'
import { useSignIn } from './session'

export function LanguageSwitch({ size = 'xs' }: { size?: 'xs' | 'sm' }) {
  const { t, i18n } = useTranslation()
  const { me } = useSignIn()
  void i18n.language
  return (
    <SegmentedControl
      size={size}
      aria-label={t('common.language')}
      value={language()}
      onChange={(value) => {
        chooseLanguage(value as Language)
        // The account follows along for the next browser; a failure costs nothing here.
        if (me) void calls.setLanguage(value as Language).catch(() => undefined)
      }}
      data={[
        { value: 'vi', label: 'Tiếng Việt' },
        { value: 'en', label: 'English' },
      ]}
    />
  )
}
