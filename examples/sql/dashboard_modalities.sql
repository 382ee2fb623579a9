-- Dashboard: patients who have slides, by what else they have.
WITH slides AS (
  SELECT DISTINCT collection_id, PatientID FROM `project.dataset.idc_index` WHERE Modality = 'SM'
)
SELECT series.Modality, COUNT(DISTINCT CONCAT(series.collection_id, '/', series.PatientID)) AS patients,
  COUNT(*) AS series
FROM `project.dataset.idc_index` AS series
JOIN slides ON slides.collection_id = series.collection_id AND slides.PatientID = series.PatientID
WHERE series.Modality != 'SM'
GROUP BY series.Modality
ORDER BY patients DESC, series.Modality
