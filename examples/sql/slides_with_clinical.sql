-- Joining clinical data: slides stained with hematoxylin by the stage of their patients. The rows of `clinical` are made up:
-- put a table of your own in its place, such as one of IDC's clinical dataset.
WITH clinical AS (
  SELECT 'tcga_luad' AS collection_id, 'TCGA-05-4244' AS PatientID, 70 AS age, 'IV' AS stage
  UNION ALL SELECT 'tcga_luad', 'TCGA-05-4250', 79, 'IIIA'
  UNION ALL SELECT 'tcga_gbm', 'TCGA-12-0819', 49, NULL
  UNION ALL SELECT 'cmb_crc', 'MSB-00643', 62, 'IV'
)
SELECT clinical.stage, COUNT(*) AS slides, COUNT(DISTINCT CONCAT(clinical.collection_id, '/', clinical.PatientID)) AS patients,
  ROUND(AVG(clinical.age), 1) AS mean_age
FROM `project.dataset.idc_index` AS slides
JOIN `project.dataset.sm_index` AS sm ON sm.SeriesInstanceUID = slides.SeriesInstanceUID
JOIN clinical ON clinical.collection_id = slides.collection_id AND clinical.PatientID = slides.PatientID
WHERE 'SCT:12710003' IN UNNEST(sm.staining_usingSubstance_code_designator_value_str)
GROUP BY clinical.stage
ORDER BY slides DESC, clinical.stage
