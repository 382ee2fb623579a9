-- Dashboard: slides, patients, instances and megabytes of each collection, with its license and what to cite.
SELECT collection_id, COUNT(*) AS slides, COUNT(DISTINCT PatientID) AS patients, SUM(instanceCount) AS instances,
  ROUND(SUM(series_size_MB), 3) AS megabytes, MIN(license_short_name) AS license, MIN(source_DOI) AS doi
FROM `project.dataset.idc_index`
WHERE Modality = 'SM'
GROUP BY collection_id
ORDER BY slides DESC, collection_id
