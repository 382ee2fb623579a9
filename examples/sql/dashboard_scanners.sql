-- Dashboard: scanners with the objectives and pixel spacings (in micrometres) of their slides.
SELECT series.Manufacturer, series.ManufacturerModelName, sm.ObjectiveLensPower,
  ROUND(sm.min_PixelSpacing_2sf * 1000, 4) AS spacing_um, COUNT(*) AS slides
FROM `project.dataset.sm_index` AS sm
JOIN `project.dataset.idc_index` AS series ON series.SeriesInstanceUID = sm.SeriesInstanceUID
GROUP BY series.Manufacturer, series.ManufacturerModelName, sm.ObjectiveLensPower, spacing_um
ORDER BY slides DESC, series.Manufacturer, series.ManufacturerModelName, spacing_um
