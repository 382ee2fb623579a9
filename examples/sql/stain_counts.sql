-- Facet: how many slides have each staining substance.
SELECT substance, COUNT(DISTINCT sm.SeriesInstanceUID) AS slides
FROM `project.dataset.sm_index` AS sm, UNNEST(sm.staining_usingSubstance_CodeMeaning) AS substance
GROUP BY substance
ORDER BY slides DESC, substance
