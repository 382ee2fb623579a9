// Shows the one slide of the archive and offers `showLevel` to the driver.
const { viewer: viewers, metadata: dicom } = window.dicomMicroscopyViewer
const client = new window.DICOMwebClient.api.DICOMwebClient({ url: new URL('dicomweb', location.href).href })

const uid = (item, tag) => item[tag].Value[0]
const [series] = await client.searchForSeries({ queryParams: { Modality: 'SM' } })
const datasets = await client.retrieveSeriesMetadata({
  studyInstanceUID: uid(series, '0020000D'),
  seriesInstanceUID: uid(series, '0020000E'),
})
const images = datasets
  .map((metadata) => new dicom.VLWholeSlideMicroscopyImage({ metadata }))
  .filter((image) => ['VOLUME', 'THUMBNAIL'].includes(image.ImageType[2]))

const levels = images
  .map((image) => ({
    columns: image.TotalPixelMatrixColumns,
    rows: image.TotalPixelMatrixRows,
    sop_instance_uid: image.SOPInstanceUID,
  }))
  .filter((level, index, all) => all.findIndex(({ columns }) => columns === level.columns) === index) // channels
  .sort((a, b) => b.columns - a.columns)

const viewer = new viewers.VolumeImageViewer({
  client,
  metadata: images,
  controls: [],
  // Without it the view stops where the slide's longer side fills 256 screen pixels.
  mapViewResolutions: levels.map((level) => levels[0].columns / level.columns).reverse(),
  errorInterceptor: (error) => console.error(String(error)),
})
viewer.render({ container: 'viewport' })
for (const { identifier, isMonochromatic } of viewer.getAllOpticalPaths()) {
  if (isMonochromatic) { // channels are hidden at first
    viewer.activateOpticalPath(identifier)
    viewer.showOpticalPath(identifier)
  }
}
const map = viewer.getMap()
const view = map.getView()
view.setRotation(0) // as stored: the viewer turns the slide by its orientation

// A frame that the viewer's decoder refuses never completes: its worker dies without an answer.
const settled = () =>
  new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('some frames were not shown within 60 s')), 60_000)
    map.once('rendercomplete', resolve)
    map.render()
  })

/**
 * Show the centre of the slide with one screen pixel per pixel of the level of `levelColumns`; wait for its tiles.
 * Returns the shown rectangle in pixels of the base level: top left corner {column, row} and size {columns, rows}.
 */
window.showLevel = async (levelColumns) => {
  map.updateSize()
  const resolution = levels[0].columns / levelColumns
  const [screenColumns, screenRows] = map.getSize()
  // Whole level pixels from the corner, so that screen pixels fall on image pixels. The map's y axis points up and
  // the first row of the total pixel matrix lies at y = -1.
  const column = Math.round((levels[0].columns / resolution - screenColumns) / 2) * resolution
  const row = Math.round((levels[0].rows / resolution - screenRows) / 2) * resolution
  view.setCenter([column + (screenColumns / 2) * resolution, -1 - row - (screenRows / 2) * resolution])
  view.setResolution(resolution)
  await settled()
  // What is drawn is on the screen a frame later: two, of a busy machine.
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))
  const [left, bottom, right, top] = view.calculateExtent(map.getSize())
  return { column: left, row: -1 - top, columns: right - left, rows: top - bottom }
}

if (!map.getSize()) await new Promise((resolve) => map.once('change:size', resolve)) // profiles are fetched first
window.levels = levels
