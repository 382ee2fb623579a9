-- Multiplex slides with a channel for CD3 and another one for CD45, and all markers that they have.
SELECT SeriesInstanceUID, STRING_AGG(DISTINCT target, ', ' ORDER BY target) AS targets
FROM `project.dataset.sm_channel_index`
WHERE target IS NOT NULL
GROUP BY SeriesInstanceUID
HAVING COUNTIF(target = 'CD3') > 0 AND COUNTIF(target = 'CD45') > 0
ORDER BY SeriesInstanceUID
