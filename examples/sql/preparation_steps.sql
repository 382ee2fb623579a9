-- Every preparation step of every specimen, as one line of text per step.
SELECT series.collection_id, steps.SpecimenIdentifier, steps.step_number, steps.processingType_CodeMeaning AS processing,
  (SELECT STRING_AGG(item.value, ', ' ORDER BY item.value) FROM UNNEST(steps.content) AS item
   WHERE item.concept_code_designator_value_str IN ('SCT:430864009', 'SCT:430863003', 'SCT:424361007')) AS with_what
FROM `project.dataset.sm_specimen_index` AS steps
JOIN `project.dataset.idc_index` AS series ON series.SeriesInstanceUID = steps.SeriesInstanceUID
ORDER BY series.collection_id, steps.SpecimenIdentifier, steps.step_number
