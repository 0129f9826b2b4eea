import type { ReactNode } from 'react'

// A handful of stroke icons on a 24 grid; a package would weigh more than the console.
const shapes: Record<string, ReactNode> = {
  home: <path d="M4 11l8-7 8 7v9H14v-6h-4v6H4z" />,
  server: <path d="M4 5h16v6H4zM4 13h16v6H4zM7 8h.01M7 16h.01" />,
  disc: (
    <>
      <circle cx="12" cy="12" r="8.5" />
      <circle cx="12" cy="12" r="2.5" />
    </>
  ),
  stack: <path d="M12 4l9 5-9 5-9-5zM3 14l9 5 9-5" />,
  screen: <path d="M3 5h18v11H3zM9 20h6M12 16v4" />,
  map: <path d="M12 21s7-6.2 7-11.5A7 7 0 0 0 5 9.5C5 14.8 12 21 12 21zM12 12a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5z" />,
  users: <path d="M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c0-3.6 2.9-6 6.5-6s6.5 2.4 6.5 6M16 4.5a3.5 3.5 0 0 1 0 6.5M18 14.5c2.2.8 3.5 2.8 3.5 5.5" />,
  list: <path d="M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01" />,
  device: <path d="M5 4h14v10H5zM3 18h18M9 14v4M15 14v4" />,
  link: <path d="M9 15l6-6M8 11l-2.5 2.5a3.5 3.5 0 0 0 5 5L13 16M16 13l2.5-2.5a3.5 3.5 0 0 0-5-5L11 8" />,
  check: <path d="M4 12l6 6L20 6" />,
  key: <path d="M14.5 4a5.5 5.5 0 1 1-3.9 9.4L4 20v-3h2v-2h2l2.6-2.6A5.5 5.5 0 0 1 14.5 4zM16 8h.01" />,
  search: (
    <>
      <circle cx="10.5" cy="10.5" r="6.5" />
      <path d="M20 20l-4.5-4.5" />
    </>
  ),
  refresh: <path d="M20 5v5h-5M4 19v-5h5M5.5 9a7 7 0 0 1 12-2.5L20 10M18.5 15a7 7 0 0 1-12 2.5L4 14" />,
  play: <path d="M7 4.5v15l12-7.5z" />,
  stop: <path d="M6 6h12v12H6z" />,
  more: <path d="M5 12h.01M12 12h.01M19 12h.01" />,
  expand: <path d="M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5" />,
  copy: <path d="M9 9h11v11H9zM5 15H4V4h11v1" />,
  out: <path d="M14 4H5v16h9M10 12h11M17 8l4 4-4 4" />,
  plus: <path d="M12 5v14M5 12h14" />,
  up: <path d="M6 14l6-6 6 6" />,
  down: <path d="M6 10l6 6 6-6" />,
  bell: <path d="M6 16V11a6 6 0 0 1 12 0v5l2 2H4zM10 21h4" />,
  headset: <path d="M4 14v-2a8 8 0 0116 0v2M4 14h3v5H5a1 1 0 01-1-1zM20 14h-3v5h2a1 1 0 001-1zM20 18v1a2 2 0 01-2 2h-5" />,
  alarm: <path d="M12 4l9 16H3zM12 10v4M12 17h.01" />,
  upload: <path d="M12 16V4M7 9l5-5 5 5M4 17v3h16v-3" />,
}

export type IconName =
  | 'home' | 'server' | 'disc' | 'stack' | 'screen' | 'map' | 'users' | 'list' | 'device' | 'link' | 'key' | 'check'
  | 'search' | 'refresh' | 'play' | 'stop' | 'more' | 'expand' | 'copy' | 'out' | 'plus' | 'up' | 'down' | 'upload' | 'alarm' | 'bell' | 'headset'

export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  const dots = name === 'more'
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      strokeWidth={dots ? 3 : 1.8}
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
      focusable="false"
    >
      {shapes[name]}
    </svg>
  )
}
