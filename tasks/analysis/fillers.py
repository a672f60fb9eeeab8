"""Words of four letters and more that every text of a language is full of, so that they say nothing about this one.

Shorter ones are left out by their length: see keywords.py.
"""

from __future__ import annotations

from tasks.analysis.words import word_set

_EN = """
able about above according across actually added after again against ain't allow allowed almost alone along already
also although always among another answer answered answers anybody anyone anything anyway apart appear appeared
aren't around aside asked asking away back became because become becomes been before began begin begun behind being
believe below beside besides best better between beyond both bring bringing brought called came can't cannot carried
case certain certainly close come comes coming continued could couldn't course cried dear didn't different does
doesn't doing don't done down during each early easily either else enough even ever every everybody everyone
everything exactly except fact feel feeling fell felt fetch finally find first five followed following forth found
four from full further gave gets getting give given gives giving glad glance glanced goes going gone good great
hadn't half happen happened hardly hasn't have haven't having he'd he'll hear heard held help hence here here's
herself himself hold holding however i'll i've indeed inside instead into isn't it'll it's itself just keep kept
kind knew know knowing known knows laid large last late later latter least leave leaving left less let's letting
like likely little long longer look looked looking looks lost made make makes making manner many matter maybe mean
means meant merely might mine miss mister moment more moreover most much must myself named near nearly need needed
never next nobody none nothing nowhere observed often once only onto open opened other others otherwise ought
ourselves over part particular passed perhaps place possible present presently pretty quite rather reached ready
real really remained remarked remember replied replies rest return returned right round said same saying says seeing
seem seemed seeming seems seen seldom self sent seven several shall shan't she'd she'll she's shook should shouldn't
show showed shown shut since sitting slowly small some somebody somehow someone something sometimes somewhat
somewhere soon sort speak spoke spoken stand stay stayed still stood stop stopped straight strange such suddenly
suppose supposed sure take taken takes taking talk talked talking tell telling than thank that that'll that's their
theirs them themselves then there there's therefore these they they'd they'll they're they've thing things think
thinking this those though thought three through throughout thus till time times together told took toward towards
tried trying turn turned turning twice under understand understood unless until upon used uses using usual usually
very walk walked walking want wanted wants wasn't watch watched we'd we'll we're we've well went were weren't what
what's whatever when where where's wherever whether which whichever while who's whoever whole whom whose will wish
wished with within without won't wonder worth would wouldn't yesterday you'd you'll you're you've young your yours
yourself yourselves
"""
_DE = """
aber alle allem allen aller alles also andere anderem anderen anderer anderes auch beim bereits bevor bist damit
dann daran darauf daraus darin darum darüber dass davon dazu dein deine deinem deinen deiner denen denn dennoch
deren derer dessen desto dich dies diese dieselbe diesem diesen dieser dieses doch dort durch eben ebenso eigentlich
eine einem einen einer eines einige einigen einiger einmal endlich etwa etwas euch euer eure fast fragte ganz ganze
ganzen gegen gehen gerade gern gewesen gewiss ging gleich habe haben hast hatte hatten hier hinter hätte hätten
ihnen ihre ihrem ihren ihrer ihres immer indem irgend jede jedem jeden jeder jedes jedoch jener jenes jetzt kann
kannst kein keine keinem keinen keiner kommen konnte konnten können könnte lange lassen ließ lässt machen macht
machte mehr mein meine meinem meinen meiner mich muss musste möchte müssen nach nachdem neben nicht nichts niemand
noch oder ohne sagen sagt sagte schließlich schon sehen sehr sein seine seinem seinen seiner seines seit selbst sich
sicher sind sofort sogar solche solchen soll sollen sollte sondern sonst soviel stand statt unser unsere unserem
unseren unter viel viele vielen vielleicht wann waren warum wegen weil weise weiter welche welchem welchen welcher
welches wenig weniger wenn werde werden wessen wieder will wird wirklich wissen wohl wollen wollte worden worin
wurde wurden während würde würden zwar zwei zwischen über überhaupt
"""
_FR = """
afin ailleurs ainsi alors après assez aucun aucune aujourd'hui auquel aussi autour autre autres avaient avais avait
avant avec avez avoir avons ayant beaucoup bien bientôt c'est c'était ceci cela celle celles celui cependant certain
certaine certains ceux chaque chez comme comment contre d'abord d'autres d'un d'une d'être dans demanda depuis
dernier derrière deux devait devant devenir deviez dire disait doit donc donner dont déjà elle elles encore enfin
entre envers faire fais faisait fait fallait faut firent fois font fort furent grand grande grands hors j'ai j'avais
jamais jusqu'à jusque l'autre l'on l'un laquelle leur leurs loin lorsque lui-même maintenant mais malgré mieux moins
monsieur même mêmes n'avait n'est n'était notre nous nôtre parce pardon parfois parle parler parmi pendant personne
petit petite petits peut peut-être plus plusieurs plutôt point pour pourquoi pourrait pourtant presque près puis
puisque qu'elle qu'elles qu'il qu'ils qu'on qu'un qu'une quand quel quelle quelles quelqu'un quelque quelques quels
quitte quoi rien répondit s'il s'était sans savait savoir sera serait seul seule seulement sien sinon soit sommes
sont sous souvent suis surtout tandis tant tard telle tels toujours tous tout toute toutes trop trouve trouver très
vers veut veux voici voilà voir vont votre voulait vous vraiment vôtre étaient étais était étant être
"""
_ES = """
además adonde ahora algo alguien alguna algunas alguno algunos algún allá allí ambos ante antes apenas aquel aquella
aquellas aquello aquellos aquí aunque bajo bastante bien cada casi cerca cierta cierto como conmigo contigo contra
cosa cosas creo cual cuales cualquier cuando cuanto cuya cuyo cuál cuándo cuánto cómo dado debe deben debía decir
decía dejó demasiado demás dentro desde después dice dicen dicho dijo donde durante dónde ella ellas ello ellos
embargo encima entonces entre eran eras eres esas esos esta estaba estaban estado estar estas este esto estos estoy
estuvo está están fuera fueron gran grande grandes haber habrá había habían hace hacen hacer hacia hacía hago hasta
hecho hemos hizo hubiera hubo jamás junto luego mayor mejor menos mientras misma mismo mismos mucha muchas mucho
muchos nada nadie ninguna ninguno ningún nosotros nuestra nuestras nuestro nuestros nunca otra otras otro otros para
parece parecía pero poca poco pocos poder podido podía pone porque pronto pudo pueda puede pueden puedo pues puesto
quería quien quienes quiere quiero quizá quizás quién respondió sabe saber sabía sido siempre siendo sino sobre sola
solamente solo somos suyo sólo también tampoco tanta tanto tener tenga tengo tenía tenían tiene tienen toda todas
todavía todo todos tras tuvo unas unos usted ustedes varias varios veces venía volvió vosotros vuestra vuestro
"""
_IT = """
abbia abbiamo adesso alcuna alcune alcuni alcuno alla alle allo allora almeno altra altre altri altro anche ancora
andare appena assai avanti avendo aver avere aveva avevano avevo avrebbe avuto basta benché bene bensì certa certe
chiunque cioè circa come cominciò contro cosa cose così dagli dalla dalle dallo davanti degli della delle dello
dentro deve dice dire disse dopo dove dovere doveva dunque durante ebbe ecco egli ella erano eravamo essa esse
essere essi fare fatto fece finché fino forse fosse fossero fuori grande grandi hanno infatti insieme intanto
intorno invece loro maggior meglio meno mentre mezzo miei molta molte molti molto negli nella nelle nello nemmeno
nessun nessuna nessuno niente nostra nostre nostri nostro nulla ogni ognuno oltre oppure parecchi perché perciò
persino però piuttosto pochi poco potere poteva poté presso prima proprio pure qualche qualcosa qualcuno quale quali
qualunque quando quanta quanti quanto quasi quel quella quelle quelli quello questa queste questi questo quindi
rispose sapere sapeva sarebbe sarà secondo sempre senza siamo siano solo soltanto sono sopra sotto stata state stati
stato stava stavano stessa stessi stesso subito sugli sulla sulle sullo suoi tale tali tanta tante tanti tanto
troppo tutta tutte tutti tutto veniva volta volte vostra vostro
"""
_PT = """
agora ainda algo algum alguma algumas alguns alguém além ambos antes aonde apenas apesar aquela aquelas aquele
aqueles aqui aquilo assim através atrás bastante cada certa certo coisa coisas como contra contudo cuja cujo dela
delas dele deles demais dentro depois desde dessa desse desta deste deve devia disse disso disto dizer dizia donde
durante elas eles embora enquanto entre então eram essa essas esse esses esta estar estas estava estavam este estes
esteve estou está fazer fazia ficou fora foram fosse grande grandes haver havia hoje isso isto jamais junto lhes
logo longe maior mais meio menos mesma mesmas mesmo mesmos meus minha minhas muita muitas muito muitos nada nadas
naquela naquele nela nele nenhum nenhuma nessa nesse nesta neste ninguém nossa nossas nosso nossos numa nunca onde
outra outras outro outros para parece parecia pela pelas pelo pelos pequena pequeno perto pode podem poder podia
pois porque porquê porém pouca pouco poucos própria próprio quais qual qualquer quando quanto quase quem quer queria
respondeu saber sabia seja sejam sempre senão seria será seus sido sobre somente suas também tanta tanto tantos
tendo tenha tenho teve tinha tinham tive toda todas todavia todo todos tudo umas vamos veio vezes você vocês voltou
vossa vosso
"""
_NL = """
achter alleen alles alsof altijd ander andere anderen anders antwoordde begon behalve beide beiden beneden bent
bijna binnen boven buiten daar daarbij daarin daarna daarom daarop daaruit daarvan dacht dadelijk deden deed deze
dezelfde dien dikwijls doch doen door draaide echter eens eerst eerste eigen eindelijk elkaar elke enige enkele even
gaan gaat geen gegaan gehad geheel gekomen geven geweest gewoon gezegd ging gingen goed goede groot grote hadden
hare hebben hebt heeft heel hele hier hierin hoewel hunne ieder iedere iedereen iemand iets immers inderdaad indien
jouw juist kunnen kwam kwamen laat langs laten later liet maakte maar maken meer meest meestal menig mijn mijne
misschien mocht moest moesten moet moeten mogen naar naast namelijk neen niemand niet niets noch nodig nogal nooit
ofschoon omdat onder ongeveer onze over overal rond samen scheen slechts soms spoedig staan steeds stond stonden
tegen terug terwijl tevens thans toch toen totdat tusschen tussen vanaf veel vele velen veler vervolgens volgens
voor vooral vorige vroeg waar waarbij waarin waarom waarop waarvan wanneer want waren weer weet wegens weinig welk
welke werd werden weten wezen wilde wilden willen wist worden wordt zagen zeer zegde zeggen zegt zelf zelfs zich
zijn zijne zoals zodat zonder zouden zulk zulke zullen
"""
FILLERS = {
    "en": word_set(_EN),
    "de": word_set(_DE),
    "fr": word_set(_FR),
    "es": word_set(_ES),
    "it": word_set(_IT),
    "pt": word_set(_PT),
    "nl": word_set(_NL),
}
