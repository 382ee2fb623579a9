// node drive.mjs CHROMIUM PAGE_URL SCREENSHOT_FOLDER
// Opens the test page in headless Chromium, shows each level of the slide at its own resolution, takes a screenshot
// of each, and prints {views: [{level, file, column, row, columns, rows}], messages, failed_requests, frames_of}.
import path from 'node:path'
import { chromium } from 'playwright-core'

const [executablePath, url, folder] = process.argv.slice(2)
const browser = await chromium.launch({
  executablePath,
  args: [
    '--headless',
    '--no-sandbox',
    '--no-first-run',
    '--disable-quic',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    // WebGL without a graphics card
    '--use-gl=angle',
    '--use-angle=swiftshader',
    '--enable-unsafe-swiftshader',
  ],
})
try {
  const page = await browser.newPage()
  page.setDefaultTimeout(60_000)
  const messages = [] // errors and warnings of the console, and uncaught errors, also those of the decoding workers
  const failedRequests = []
  const framesOf = {} // SOP Instance UID -> frames received
  page.on('console', (message) => {
    const isAboutDriver = message.text().includes('GL Driver Message') // performance hints of some Chromium builds
    if (['error', 'warning'].includes(message.type()) && !isAboutDriver) messages.push(message.text())
  })
  page.on('pageerror', (error) => messages.push(`uncaught: ${error.message}`))
  page.on('requestfailed', (request) => failedRequests.push(`${request.url()}: ${request.failure()?.errorText}`))
  page.on('response', (response) => {
    if (response.status() >= 400) failedRequests.push(`${response.url()}: ${response.status()}`)
    const instance = response.url().match(/instances\/([\d.]+)\/frames\//)?.[1]
    if (instance) framesOf[instance] = (framesOf[instance] ?? 0) + 1
  })

  await page.goto(url)
  await page.waitForFunction(() => window.levels !== undefined)
  const views = []
  for (const level of await page.evaluate(() => window.levels)) {
    // No larger than the level: the viewer does not zoom out beyond the whole slide.
    await page.setViewportSize({ width: Math.min(800, level.columns), height: Math.min(600, level.rows) })
    const shown = await page
      .evaluate((columns) => window.showLevel(columns), level.columns)
      .catch((error) => messages.push(`level of ${level.columns} columns: ${error.message}`))
    const file = path.join(folder, `level-${level.columns}.png`)
    await page.screenshot({ path: file })
    views.push({ level, file, ...shown }) // without a rectangle when the level could not be shown
  }
  console.log(JSON.stringify({ views, messages, failed_requests: failedRequests, frames_of: framesOf }, null, 2))
} finally {
  await browser.close()
}
