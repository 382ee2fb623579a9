-- Cohort: slides of tissue fixed in formalin and embedded in paraffin whose patient has a CT, and how many CT series.
-- A slide and a scan belong together by collection and patient.
WITH scans AS (
  SELECT collection_id, PatientID, COUNT(*) AS ct_series
  FROM `project.dataset.idc_index`
  WHERE Modality = 'CT'
  GROUP BY collection_id, PatientID
)
SELECT slides.collection_id, slides.PatientID, sm.ContainerIdentifier, slides.SeriesInstanceUID, scans.ct_series
FROM `project.dataset.idc_index` AS slides
JOIN `project.dataset.sm_index` AS sm ON sm.SeriesInstanceUID = slides.SeriesInstanceUID
JOIN scans ON scans.collection_id = slides.collection_id AND scans.PatientID = slides.PatientID
WHERE 'SCT:431510009' IN UNNEST(sm.tissueFixative_code_designator_value_str)
  AND 'SCT:311731000' IN UNNEST(sm.embeddingMedium_code_designator_value_str)
ORDER BY slides.collection_id, slides.PatientID, sm.ContainerIdentifier
