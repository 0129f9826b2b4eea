import { createTheme, type MantineColorsTuple } from '@mantine/core'

// White text on shades 7-9 and these shades on white keep WCAG AA contrast.
const tram: MantineColorsTuple = [
  '#e9f7f6',
  '#d3ebe9',
  '#a4d8d4',
  '#72c3be',
  '#46aca6',
  '#2a9690',
  '#17817c',
  '#0b6b69',
  '#075855',
  '#034340',
]

export const theme = createTheme({
  primaryColor: 'tram',
  primaryShade: { light: 7, dark: 7 },
  colors: { tram },
  fontFamily: "'Noto Sans Variable', 'Noto Sans', system-ui, sans-serif",
  fontFamilyMonospace: "ui-monospace, 'DejaVu Sans Mono', 'Liberation Mono', monospace",
  headings: { fontFamily: "'Noto Sans Variable', 'Noto Sans', system-ui, sans-serif", fontWeight: '650' },
  defaultRadius: 'md',
  cursorType: 'pointer',
  respectReducedMotion: true,
  components: {
    // A dialog's <header> must not count as a second page banner.
    Modal: { defaultProps: { centered: true, attributes: { header: { role: 'presentation' } }, styles: { title: { fontWeight: 650 } } } },
    Tooltip: { defaultProps: { withArrow: true, openDelay: 300 } },
  },
})
