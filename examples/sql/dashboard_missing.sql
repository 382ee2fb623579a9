-- Dashboard: what slides do not state, by collection: work for curators.
SELECT series.collection_id, COUNT(*) AS slides,
  COUNTIF(ARRAY_LENGTH(sm.staining_usingSubstance_CodeMeaning) = 0) AS no_stain,
  COUNTIF(ARRAY_LENGTH(sm.tissueFixative_CodeMeaning) = 0) AS no_fixative,
  COUNTIF(ARRAY_LENGTH(sm.embeddingMedium_CodeMeaning) = 0) AS no_embedding,
  COUNTIF(sm.primaryAnatomicStructure_CodeMeaning IS NULL) AS no_anatomy,
  COUNTIF(sm.admittingDiagnosis_CodeMeaning IS NULL) AS no_diagnosis
FROM `project.dataset.sm_index` AS sm
JOIN `project.dataset.idc_index` AS series ON series.SeriesInstanceUID = sm.SeriesInstanceUID
GROUP BY series.collection_id
ORDER BY series.collection_id
