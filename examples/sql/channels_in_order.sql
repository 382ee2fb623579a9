-- The optical paths of a multiplex slide in the order in which its header lists them, from 0.
SELECT DISTINCT headers.ContainerIdentifier, place, path.OpticalPathIdentifier, path.IlluminationWaveLength AS nm
FROM `project.dataset.dicom_all` AS headers, UNNEST(headers.OpticalPathSequence) AS path WITH OFFSET AS place
WHERE ARRAY_LENGTH(headers.OpticalPathSequence) > 1
ORDER BY headers.ContainerIdentifier, place
