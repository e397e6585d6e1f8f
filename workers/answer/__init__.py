"""The answer of a study: finalists over seeds, one look at the locked test part, and what it all says.

A search returns the luckiest of many trials. Here the best settings, the same network without regularization and the
framework's defaults are trained again, each over the same seeds. What is chosen is chosen on validation data; then the
test part is opened, on record. `Finalizer.run` gives an `Answer`, whose ``result`` holds (all additive; differences and
gaps are signed so that positive means *worse than the winner* or *worse on unseen rows*, whatever the direction):

metric, direction, verdict, seeds   words and numbers; ``seeds`` per setting
winner, baseline, others[]          a *setting*: name, role (finalist, baseline), trial, recipe, regularizers, and
                                    train, valid, train_loss {mean, std, n} over seeds,
                                    test {mean, low, high, n rows, seeds, se_rows, se_seeds}: see `intervals`,
                                    gap {train_valid, valid_test, train_test} in the study's metric,
                                    also {objective: {mean, std, n}}, the study's further objectives, validation rows,
                                    behind_winner, an interval like test: paired difference on the test rows (None for
                                    the winner). All of these are None where no seed could be trained
gain                                baseline.behind_winner: what regularization brought; clear if low > 0
ties[], recommended                 names of finalists that tie with the winner; {name, reason, recipe} of the simplest
selection                           {name, found, valid, test, optimism_valid, optimism_test}: the search's best value
                                    beside the same recipe's mean over new seeds, and on the test rows
optimism                            the same of the winner, on validation rows only
ablation[]                          without, valid, change (positive: the regularizer helped), low, high over n seeds
ensemble                            members[{name, seed, share}], valid, test (interval), single {name, seed, valid, test},
                                    gain (interval, positive: the ensemble is better)
importance                          {fanova, ped_anova: {setting: share} or None, trials, reason}
front[]                             {trial, values {objective: value}, recipe, regularizers}: complete trials that no
                                    other one dominates; only where the study has several objectives
effects[]                           {setting, bins[{low, high} or {choice}, n, mean, standard_error]}
weights                             by name of winner and unregularized: {norm, sparsity, layers[{name, norm, sparsity}]}
pruning                             by name: [{asked, sparsity, score}], validation score as the smallest weights become 0
curves                              by name: {epochs[], seeds[], best, train_loss[], loss[], <metric>[]}
discrimination                      of classes, by name of winner and unregularized: {confusion, roc[], pr[]}, see `curves`
rows, phases                        row counts; seconds of finalists, baselines and ablation, scoring, importance
finalizing_epochs                   epochs that all of it took, to be compared with trials.epochs of the search

`finishing` adds wall_seconds, search_seconds, finalizing_seconds, trials, utilization, provenance, test_accesses (a
count), concluded {reason, trials, budget} or None; the API adds test_record[{at, who, purpose}].
"""

from workers.answer.finalizer import Answer, Finalizer, TrainedModel

__all__ = ["Answer", "Finalizer", "TrainedModel"]
