"""The evaluation script released with MetricAnything: Booster, all pixels pooled, its own SILog."""

from metricanything.evaluation.protocol import Protocol

PROTOCOLS = (
    Protocol(
        name="booster-official",
        task="depth",
        summary="Booster, pooled pixels, 0.001 to 10 m, camera given",
        source="MetricAnything, student_depthmap: eval.py, eval.sh and their README",
        dataset="Booster, train, balanced/*/camera_00, 228 images, with mask_00.png",
        metrics=("delta1", "delta2", "delta3", "abs_rel", "sq_rel", "rmse", "mae", "rmse_log", "log10", "silog_half",
                 "coverage"),
        depth_range=(1e-3, 10.0),
        averaging="pooled",
        unknown="its images go to 1536 x 1536 as antialiased uint8; here the model resizes them its own way",
    ),
)  # fmt: skip
GROUPS = {"booster": ("booster-official",)}
