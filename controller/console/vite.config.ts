import react from '@vitejs/plugin-react'
import { defineConfig } from 'vitest/config'

// The controller (or tests/browser/mock) that `npm run dev` talks to.
const controller = process.env.TRAM_URL ?? 'https://127.0.0.1:8443'

export default defineConfig({
  base: '/console/',
  plugins: [react()],
  build: {
    target: 'es2022',
    // light-dark() must reach the browser as it is: lowered, it loses the theme's colour scheme.
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
    // Data URLs would need a wider content security policy for fonts.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 700,
  },
  server: {
    proxy: {
      '/api': { target: controller, secure: false, changeOrigin: true },
      '/gateway': { target: controller, secure: false, changeOrigin: true, ws: true },
    },
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
})
