"""The run folder and its ledger; readable without torch, so that results travel.

::

    runs/<name>/
      config.json  origins.json  env.json  command.txt  ledger.jsonl
      data/{manifest.csv,fingerprint.json,checks.json,quarantine.csv}
      profile.json
      trials/<cut>__<strategy>__s<seed>/{trial.json,metrics.jsonl,result.json,best.safetensors,
                                         predictions_val.npz,predictions_test.npz,worker.log}
      results.csv  front.csv  stages.csv  probe.json  probe.safetensors  front.json  chosen.json
      earlier_openings.json  subgroups.csv
      exports/<cut>/{model.onnx,manifest.json,…}   bench/<host>/…      (several strategies: exports/<cut>__<strategy>/;
                                                        not onnx in fp32: exports/<cut>-<format>-<precision>/)
      refusals/<artifact>--<time>.json                  (exports that a check refused)
      report.html  report.md  NEXT_STEPS.txt
"""
