-- Dashboard: what validation said of the slides of each collection, and findings of conversion.
SELECT series.collection_id,
  COUNTIF(conversions.validation_passed) AS passed,
  COUNTIF(NOT conversions.validation_passed) AS failed,
  COUNTIF(conversions.validation_passed IS NULL) AS not_validated,
  SUM(ARRAY_LENGTH(conversions.findings)) AS findings
FROM `project.dataset.idc_index` AS series
LEFT JOIN `project.dataset.conversions` AS conversions ON conversions.SeriesInstanceUID = series.SeriesInstanceUID
WHERE series.Modality = 'SM'
GROUP BY series.collection_id
ORDER BY series.collection_id
